"""`python -m dbwjax.train`: compares waiting rules on one task, end to end."""

from dbwjax.cli.start import run


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    from dbwjax.cli.train import main

    return main(argv)


if __name__ == "__main__":
    run(main)
