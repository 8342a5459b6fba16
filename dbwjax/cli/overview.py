"""`python -m dbwjax`: lists the commands, from what each says of itself."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from dbwjax import specs
from dbwjax.cli.command import guarded
from dbwjax.runtime import streams


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the overview; returns 0, or 2 for words that are not `-h`, `--help` or `--version` alone."""
    return guarded(lambda: _main(list(sys.argv[1:] if argv is None else argv)))


def _main(words: list[str]) -> int:
    if len(words) > 1 and words[0] in ("-h", "--help", "--version"):
        raise ValueError(f"'{words[1]}' is one word too many; write {words[0]} alone")
    if not words or words[0] in ("-h", "--help"):
        streams.show(overview())
    elif words[0] == "--version":
        streams.show(f"dbwjax {version('dbwjax')}")
    else:
        raise ValueError(_refusal(words[0]))
    return 0


def commands() -> dict[str, str]:
    """What each command does, by name: every module of this room whose first words are how it is started."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        about = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""  # none of them is imported for it
        call, _, rest = " ".join(about.partition("\n\n")[0].split()).partition("`: ")
        if call.startswith(f"`python -m dbwjax.{file.stem}"):
            found[file.stem] = rest
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
    if word in known:
        return f"'{word}' is a module of its own; write python -m dbwjax.{word}"
    return f"unknown command '{word}'; {specs.nearest(word, known)}; write python -m dbwjax.NAME"
