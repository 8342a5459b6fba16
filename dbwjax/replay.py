"""`python -m dbwjax.replay RUN`: draws a finished run's arrival order again, checks it, and trains on it anew."""

from dbwjax.cli.replay import main

if __name__ == "__main__":
    raise SystemExit(main())
