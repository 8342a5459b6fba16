"""`python -m dbwjax.sweep`: graphs, seeds and settings by the hundred, policies compared in pairs."""

from dbwjax.cli.start import run


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    from dbwjax.cli.sweep import main

    return main(argv)


if __name__ == "__main__":
    run(main)
