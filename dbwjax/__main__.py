"""`python -m dbwjax`: lists the commands."""

from dbwjax.cli.overview import main

if __name__ == "__main__":
    raise SystemExit(main())
