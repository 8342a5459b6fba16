"""`python -m dbwjax.report`: makes the page of finished runs and sweeps, or one that compares several runs."""

from dbwjax.cli.start import run


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    from dbwjax.cli.report import main

    return main(argv)


if __name__ == "__main__":
    run(main)
