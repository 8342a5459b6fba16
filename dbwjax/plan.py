"""`python -m dbwjax.plan TIMES.csv`: which waiting rule and topology for a cluster whose step times were measured."""

from dbwjax.cli.start import run


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    from dbwjax.cli.plan import main

    return main(argv)


if __name__ == "__main__":
    run(main)
