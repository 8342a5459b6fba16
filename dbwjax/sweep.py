"""`python -m dbwjax.sweep`: graphs, seeds and settings by the hundred, policies compared in pairs."""

from dbwjax.cli.sweep import main

if __name__ == "__main__":
    raise SystemExit(main())
