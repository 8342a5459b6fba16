"""How every figure looks: one colour per waiting rule, widths of a journal's columns, text that is never mathematics.

    with style.house_style():
        figure, axes = style.new_figure(180, 70, 1, 2)
        axes[0, 0].plot(x, y, **style.looks(policies)["dybw"])
        style.save(figure, folder, "mine", ("png", "pdf"))

Matplotlib is imported when it is first needed, and pyplot's global state is not touched.
"""

from __future__ import annotations

import contextlib
import os
import textwrap
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dbwjax.files import replace_file

COLUMN, PAGE = 85.0, 180.0
"""Widths of one column and of a page's two columns, in mm."""

GREY = "#5f5f5f"
"""Of notes and of reference lines."""

FIXED = ("#010101", "#fefefe")
"""Black and white on a colour: where a page is dark, all other black turns light, and this must not."""

FORMATS = ("png", "pdf", "svg")

_MM = 1 / 25.4

# Every colour has a contrast of at least 3:1 on white. Those of the first rules are far apart for all colour vision.
_COLOURS = {
    "dybw": "#0072B2",
    "full": "#D55E00",
    "backup": "#009E73",
    "fastest": "#B8478A",
    "deadline": "#7A5A00",
    "dpsgd": "#1A1A1A",
}
_OTHERS = ("#6A3FB5", "#1F8FA6", "#C4122F", "#5E7300", "#5B6B8C", "#7A3B1E")
# Of those, the methods that are compared most have one each; the rest take theirs by their names.
_COLOURS |= dict(zip(("async_server", "adpsgd", "server_backup", "sgp", "ssp", "hop"), _OTHERS, strict=True))
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.5, 1)),
    (0, (6, 1.5, 1.5, 1.5)),
    (0, (3, 1)),
    (0, (8, 1.5, 1.5, 1.5, 1.5, 1.5)),
    (0, (1, 2)),
)
_MARKERS = ("o", "s", "D", "^", "v", "p", "h", "<", ">", "d", "H", "8")

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 7,
    "axes.labelpad": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.6,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "figure.dpi": 200,
    "savefig.dpi": 200,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "dbwjax",
    "pdf.fonttype": 42,
}


def house_style() -> contextlib.AbstractContextManager:
    """Matplotlib's defaults and the house's own settings while figures are drawn; a user's matplotlibrc has no say."""
    import matplotlib.style

    return matplotlib.style.context(["default", _RC])


def new_figure(width_mm: float, height_mm: float, rows: int = 1, columns: int = 1, **settings: Any) -> tuple[Any, Any]:
    """A figure of its own, outside pyplot's list.

    Args:
      width_mm: 85 for one column of a journal, 180 for two.
      height_mm: its height.
      rows: of axes.
      columns: of axes.
      **settings: of `Figure.subplots`, such as `width_ratios` and `sharex`.

    Returns:
      The figure and its axes, `[rows, columns]`.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # Room around panels in inches, and between them in shares of a panel's size.
    room: dict[str, Any] = {"w_pad": 1.2 * _MM, "h_pad": 1.2 * _MM, "wspace": 0.03, "hspace": 0.03}
    figure = Figure(figsize=(width_mm * _MM, height_mm * _MM), layout=ConstrainedLayoutEngine(**room))
    return figure, figure.subplots(rows, columns, squeeze=False, **settings)


def check(formats: Sequence[str], width_mm: float | None = None) -> None:
    """Refuses what cannot be written, before anything is drawn.

    Raises:
      ValueError: an unknown format or a width outside 60 to 600 mm.
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"figures cannot be written as '{name}'; use {', '.join(FORMATS)}")
    if width_mm is not None and not 60 <= width_mm <= 600:
        raise ValueError(f"a figure cannot be {width_mm:g} mm wide; use 60 to 600, as {COLUMN:g} for one column")


def save(figure: Any, folder: str | Path, name: str, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Writes a figure whole in each format; the same figure gives the same bytes.

    Args:
      figure: drawn under `house_style`.
      folder: where the files go.
      name: without a suffix.
      formats: of `png`, `pdf` and `svg`.

    Raises:
      ValueError: an unknown format, or a file cannot be written.
    """
    check(formats)
    # Entries that would hold a date or a version of Matplotlib.
    metadata: dict[str, dict[str, None]] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "svg": {"Date": None, "Creator": None},
    }
    paths = []
    for kind in formats:
        path = Path(folder) / f"{name}.{kind}"
        replace_file(path, partial(figure.savefig, format=kind, metadata=metadata[kind]))
        paths.append(path)
    return paths


def save_at(figure: Any, path: str | os.PathLike) -> None:
    """Writes a figure to a path whose ending says the format; PNG where it has none.

    Raises:
      ValueError: as `save`.
    """
    where = Path(path)
    with house_style():
        save(figure, where.parent, where.stem, (where.suffix.removeprefix(".") or "png",))


def rule_of(policy: str) -> str:
    """The rule that a SPEC names: `dybw` of `dybw:late=carry`."""
    return policy.partition(":")[0].strip()


def colour(policy: str) -> str:
    """The colour of a policy's rule, `#rrggbb`, a pure function of the rule's name.

    Rules without a colour of their own take one of six others by a hash of their name, never that of `dybw` or `full`.
    """
    rule = rule_of(policy)
    return _COLOURS.get(rule) or _OTHERS[zlib.crc32(rule.encode()) % len(_OTHERS)]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours as WCAG defines it, 1 to 21."""
    lights = sorted(_luminance(shade) for shade in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def ink_on(ground: Any) -> str:
    """Black or white, whichever is easier to read on a colour; a page's theme leaves both alone."""
    from matplotlib.colors import to_hex

    return max(FIXED, key=lambda ink: contrast(ink, to_hex(ground)))


def palette() -> list[str]:
    """All colours of rules, `#rrggbb`; the place of each names it in a page."""
    return list(dict.fromkeys([*_COLOURS.values(), *_OTHERS]))


def _luminance(shade: str) -> float:
    parts = [int(shade[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def looks(policies: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, dash and width of each policy's line, for `ax.plot`.

    Variants of a rule share its colour and differ in dashes, and so do rules that share a colour. The first line is
    the widest, so that one that lies on another leaves its edges to be seen.
    """
    found: dict[str, dict[str, Any]] = {}
    for place, policy in enumerate(policies):
        found[policy] = {
            "color": colour(policy),
            "linestyle": _free(policy, [look["color"] for look in found.values()], _DASHES),
            "linewidth": 1.7 - 0.7 * place / max(1, len(policies) - 1),
        }
    return found


def markers(policies: Sequence[str]) -> dict[str, str]:
    """Each policy's marker, for points: another for each that shares its colour."""
    seen: list[str] = []
    found = {}
    for policy in policies:
        found[policy] = _free(policy, seen, _MARKERS)
        seen.append(colour(policy))
    return found


def _free(policy: str, taken: Sequence[str], choices: Sequence[Any]) -> Any:
    """The rule's own choice, moved on by one for each line before it that has its colour."""
    rule = rule_of(policy)
    own = list(_COLOURS).index(rule) if rule in _COLOURS else zlib.crc32(rule.encode()) // len(_OTHERS)
    return choices[(own + sum(other == colour(policy) for other in taken)) % len(choices)]


def plain(text: object, width: int | None = None) -> str:
    """Text that Matplotlib draws as it stands: `$` and `\\` start no mathematics, and what has no glyph is a box.

    Args:
      text: a name from a user, such as a SPEC with a file's path in it.
      width: names longer than so many characters keep their two ends.
    """
    shown = "".join(_drawn(character) for character in str(text))
    if width is not None and len(shown) > width:
        front = width // 2
        shown = f"{shown[:front]}…{shown[len(shown) - (width - 1 - front) :]}"
    return shown.replace("$", r"\$")


def _drawn(character: str) -> str:
    if not character.isprintable():
        return character.encode("unicode_escape").decode()
    if character.isascii():
        return character
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties(family="DejaVu Sans"))).get_char_index(ord(character))
    return character if known else "\N{REPLACEMENT CHARACTER}"


def labels(policies: Sequence[str], width: int = 24) -> dict[str, str]:
    """Each policy's SPEC as drawn, at most `width` characters; numbered where shortening makes two equal."""
    short = [plain(name, width) for name in policies]
    return {
        name: f"{place + 1}: {plain(name, width - 3)}" if short.count(short[place]) > 1 else short[place]
        for place, name in enumerate(policies)
    }


def heading(ax: Any, title: str, note: str = "", letter: str = "", share: float = 1.0) -> None:
    """A panel's title, its letter before it, and a note in small print below it, wrapped to the panel's width.

    Args:
      ax: the axes.
      title: of the panel.
      note: below it.
      letter: of the panel.
      share: of the panel's width that lies right of where its axes begin.
    """
    wrap = int(0.75 * share * ax.figure.get_figwidth() / _MM / columns_of(ax))
    note = "\n".join(textwrap.fill(line, wrap, break_long_words=False) for line in note.split("\n"))
    lines = note.count("\n") + 1 if note else 0
    shown = f"({letter}) {title}" if letter else title
    ax.set_title(shown, loc="left", pad=3.5 + 7.6 * lines)
    if note:
        look = {"fontsize": 6.2, "color": GREY, "linespacing": 1.1, "ha": "left", "va": "bottom"}
        where = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
        drawn = ax.annotate(note, (0, 1), (0, 2.5), **where, **look)
        drawn.set_in_layout(False)  # as for titles: wrapping keeps it inside


def columns_of(ax: Any) -> int:
    """How many panels stand beside each other."""
    return ax.get_subplotspec().get_gridspec().ncols


def legend(
    figure: Any, policies: Sequence[str], extra: Sequence[Any] = (), lines: bool = True, points: bool = False
) -> None:
    """The key to lines, points or both, below all panels, in as many columns as the width holds."""
    from matplotlib.lines import Line2D

    shown, styles, marks = labels(policies, 44), looks(policies), markers(policies)
    handles = []
    for name in policies:
        look = styles[name] if lines else styles[name] | {"linestyle": "none"}
        if points:
            look = look | {"marker": marks[name], "markersize": 4, "markeredgecolor": "white", "markeredgewidth": 0.5}
        handles.append(Line2D([], [], label=shown[name], **look))
    handles += list(extra)
    if not handles:
        return
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = int(figure.get_figwidth() / _MM / (1.28 * longest + 13))
    figure.legend(handles=handles, loc="outside lower center", ncols=max(1, min(columns, len(handles))))


def legend_height(figure_width_mm: float, policies: Sequence[str]) -> float:
    """About how many mm the key to lines needs."""
    longest = max((min(len(name), 44) for name in policies), default=1)
    columns = max(1, int(figure_width_mm / (1.28 * longest + 13)))
    return 3.6 * -(-len(policies) // columns) + 3


def empty(ax: Any, why: str) -> None:
    """Says in an empty panel why it is empty."""
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color=GREY, fontsize=7, wrap=True)
