"""`python -m dbwjax.prepare NAME`: downloads a data set where TensorFlow and a network exist."""

from dbwjax.cli.start import run


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    from dbwjax.cli.prepare import main

    return main(argv)


if __name__ == "__main__":
    run(main)
