"""`python -m dbwjax.train`: compares waiting rules on one task, end to end."""

from dbwjax.cli.train import main

if __name__ == "__main__":
    raise SystemExit(main())
