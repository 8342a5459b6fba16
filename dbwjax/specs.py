"""SPECs: the words a person types for a thing with settings, `name` or `name:key=value,key=value`.

Ground floor: every table of named builders (graphs, delays, policies, ...) is a dict from name to a function, and a
SPEC is a call of one. The function's keyword-only parameters are the keys, their annotations the types and their
defaults the defaults, so the command line, `--list` and the errors read one signature and cannot disagree.
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dbwjax import limits, numbers

Table = Mapping[str, Callable[..., Any]]


def nearest(word: str, known: Iterable[str]) -> str:
    """Ends an error about an unknown word: the nearest known one, or all of them.

    >>> nearest("rnig", ["ring", "path"])
    "did you mean 'ring'? known: path, ring"
    """
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {', '.join(words)}"


def text_of(spec: Any) -> str:
    """A SPEC, which is text.

    Raises:
      ValueError: it is anything else.
    """
    if not isinstance(spec, str):
        raise ValueError(f"{limits.shown(spec)} is no SPEC; write name or name:key=value, as text")
    return spec


def parse(spec: str) -> tuple[str, dict[str, str]]:
    """Splits a SPEC into its name and its settings, all still text.

    >>> parse("small_world:degree=4,p=0.1")
    ('small_world', {'degree': '4', 'p': '0.1'})

    Raises:
      ValueError: a setting without `=`, an empty name or key, or a key given twice.
    """
    name, _, rest = text_of(spec).strip().partition(":")
    settings: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not key or not value:
            raise ValueError(f"'{spec}': '{item}' is not a setting; write key=value, as in name:key=value,key=value")
        if key in settings:
            raise ValueError(f"'{spec}': {key}= is given twice; keep one")
        settings[key] = value
    if not name:
        raise ValueError(f"'{spec}' names nothing; write name or name:key=value")
    return name, settings


def keys(builder: Callable[..., Any], context: Iterable[str] = ()) -> dict[str, inspect.Parameter]:
    """The settings a SPEC may give to `builder`: its keyword-only parameters that are not `context`."""
    hints = typing.get_type_hints(builder)
    return {
        name: parameter.replace(annotation=hints.get(name, str))
        for name, parameter in inspect.signature(builder).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in context
    }


def describe(name: str, builder: Callable[..., Any], context: Iterable[str] = ()) -> str:
    """A SPEC as it may be typed, with defaults: `small_world:degree=4,p=0.1`; a key without default shows its type."""
    parts = []
    for key, parameter in keys(builder, context).items():
        shown = parameter.default
        if shown is parameter.empty:
            shown = getattr(parameter.annotation, "__name__", "VALUE").upper()
        if isinstance(shown, bool):
            shown = str(shown).lower()
        parts.append(f"{key}={shown}")
    return name + (":" + ",".join(parts) if parts else "")


def meaning(spec: str, table: Table, context: Iterable[str] = ()) -> tuple[str, frozenset[tuple[str, Any]]]:
    """What a SPEC says, however it is spelled: its name and the values of all its keys, defaults filled in.

    Two SPECs of one meaning are one thing. What `build` would refuse is left as it is typed.

    >>> def grid(*, rows: int = 2): ...
    >>> meaning("grid", {"grid": grid}) == meaning(" grid: rows=02", {"grid": grid})
    True

    Raises:
      ValueError: as `parse`.
    """
    name, settings = parse(spec)
    if name not in table:
        return name, frozenset(settings.items())
    accepted = keys(table[name], context)
    values = {key: one.default for key, one in accepted.items() if one.default is not one.empty}
    for key, text in settings.items():
        try:
            values[key] = _convert("", spec, key, text, accepted[key].annotation) if key in accepted else text
        except ValueError:
            values[key] = text
    return name, frozenset(values.items())


def build(spec: str, table: Table, kind: str, *args: Any, **context: Any) -> Any:
    """Calls the builder that `spec` names in `table` with its settings.

    Args:
      spec: what the person typed.
      table: builders by name.
      kind: what the table holds, for errors ("graph", "policy").
      *args: positional arguments of every builder of this table.
      **context: keyword-only arguments that do not come from the SPEC (a seed); builders that do not take one are
        called without it.

    Raises:
      ValueError: an unknown name or key (with the nearest known one), a missing key, a value of the wrong type or one
        that the machine does not hold (see `numbers`), a seed outside 0 to 2^32 - 1, or whatever the builder itself
        refuses; always one line that names the SPEC or the seed.
    """
    if "seed" in context:
        numbers.seeds(context["seed"])
    name, settings = parse(spec)
    if name not in table:
        raise ValueError(f"unknown {kind} '{name}'; {nearest(name, table)}")
    builder = table[name]
    accepted = keys(builder, context)
    for key in settings:
        if key not in accepted:
            remedy = nearest(key, accepted) if accepted else "it has none"
            raise ValueError(f"{kind} '{spec}': unknown key '{key}'; {remedy}")
    for key, parameter in accepted.items():
        if parameter.default is parameter.empty and key not in settings:
            raise ValueError(f"{kind} '{spec}' needs {key}=; write {describe(name, builder, context)}")
    values = {key: _convert(kind, spec, key, text, accepted[key].annotation) for key, text in settings.items()}
    takes = inspect.signature(builder).parameters
    passed = {key: value for key, value in context.items() if key in takes}
    try:
        return builder(*args, **values, **passed)
    except ValueError as error:
        raise ValueError(f"{kind} '{spec}': {error}") from error


def _convert(kind: str, spec: str, key: str, text: str, annotation: Any) -> Any:
    where = f"{kind} '{spec}': {key}={text}"
    if typing.get_origin(annotation) is typing.Literal:
        choices = typing.get_args(annotation)
        if text not in choices:
            raise ValueError(f"{where} is not a choice; {nearest(text, choices)}")
        return text
    if annotation is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{where} is neither true nor false")
        return text.lower() == "true"
    if annotation in (int, float):
        try:
            return numbers.whole(text) if annotation is int else numbers.real(text)
        except ValueError as error:
            raise ValueError(f"{where} {error}") from None
    return text
