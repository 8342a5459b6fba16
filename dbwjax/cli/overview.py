"""`python -m dbwjax`: lists the commands, from what each says of itself."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from importlib.metadata import version

from dbwjax import cli, specs


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the overview; returns 0, or 2 for a word that is none of `-h`, `--help`, `--version`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(f"dbwjax {version('dbwjax')}")
        return 0
    print("error:", _refusal(words[0]), file=sys.stderr)
    return 2


def commands() -> dict[str, str]:
    """What each command does, by name: every module of this room whose first words are how it is started."""
    found = {}
    for module in pkgutil.iter_modules(cli.__path__):
        about = importlib.import_module(f"{cli.__name__}.{module.name}").__doc__ or ""
        call, _, rest = " ".join(about.partition("\n\n")[0].split()).partition("`: ")
        if call.startswith(f"`python -m dbwjax.{module.name}"):
            found[module.name] = rest
    return found


def overview() -> str:
    """The commands, one a line."""
    known = commands()
    width = max(map(len, known))
    lines = [f"  python -m dbwjax.{name:{width}}  {about}" for name, about in known.items()]
    return "\n".join(
        ["dbwjax: training with many workers when some of them are slow.", "", *lines, "", "Each takes --help."]
    )


def _refusal(word: str) -> str:
    known = commands()
    shown = " ".join(word.split())
    if word in known:
        return f"'{shown}' is a module of its own; write python -m dbwjax.{word}"
    return f"unknown command '{shown}'; {specs.nearest(word, known)}; write python -m dbwjax.NAME"
