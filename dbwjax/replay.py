"""`python -m dbwjax.replay RUN`: draws a finished run's arrival order again, checks it, and trains on it anew."""

from dbwjax.cli.start import run


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    from dbwjax.cli.replay import main

    return main(argv)


if __name__ == "__main__":
    run(main)
