"""Bytes that a compiled program moves between devices, read from its text.

Each device of the program runs the same instructions. A `collective-permute` moves its operand once for each of its
pairs of two different devices; an `all-gather` brings each device of a group the operands of the others; an
`all-reduce` moves at least twice `(n - 1) / n` of its operand for each device of a group of n (reduce, then gather); a
`reduce-scatter` and an `all-to-all` half of that. An instruction inside a loop is counted once: what is read is the
bytes of one pass.
"""

from __future__ import annotations

import math
import re

BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128}
KINDS = ("collective-permute", "all-gather", "all-reduce", "reduce-scatter", "all-to-all")

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.+?) (" + "|".join(KINDS) + r")(?:-start)?\((.*)$")
_ARRAY = re.compile(r"\b(pred|bf16|f16|f32|f64|c64|c128|[su]\d+)\[([\d,]*)\]")
_RESULT = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) [\w-]+\(")


def size(text: str) -> int:
    """Bytes of all arrays written in a type such as `(f32[2,3]{1,0}, s32[])`."""
    total = 0
    for kind, shape in _ARRAY.findall(text):
        bits = BITS.get(kind) or int(kind[1:])
        total += math.prod(int(n) for n in shape.split(",") if n) * bits // 8
    return total


def moved(text: str, devices: int) -> dict[str, float]:
    """Bytes moved by each kind of collective, all devices together.

    Args:
      text: `compiled.as_text()`.
      devices: how many the program runs on.
    """
    types = {match[1]: match[2] for match in map(_RESULT.match, text.splitlines()) if match}
    total: dict[str, float] = {}
    for line in text.splitlines():
        found = _INSTRUCTION.match(line)
        if found:
            kind, rest = found[3], found[4]
            operands = rest[: rest.index(")")]
            # Newer programs write operands by name only, older ones with their types.
            bytes_in = size(operands) or sum(size(types[name]) for name in re.findall(r"%?([\w.-]+)", operands))
            total[kind] = total.get(kind, 0) + bytes_in * _times(kind, rest, devices)
    return total


def _times(kind: str, rest: str, devices: int) -> float:
    """How often an operand's bytes cross from one device to another."""
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{(.*?\})\}", rest)
        return sum(a != b for a, b in re.findall(r"\{(\d+),(\d+)\}", pairs[1] if pairs else ""))
    crossing = 0.0
    for n in _groups(rest, devices):
        once = {"all-gather": n * (n - 1), "all-reduce": 2 * (n - 1)}
        crossing += once.get(kind, n - 1)
    return crossing


def _groups(rest: str, devices: int) -> list[int]:
    """Sizes of the groups of devices that talk to one another."""
    short = re.search(r"replica_groups=\[(\d+),(\d+)\]", rest)
    if short:
        return [int(short[2])] * int(short[1])
    listed = re.search(r"replica_groups=\{(\{.*?\})\}", rest)
    if listed:
        return [len(group.split(",")) for group in re.findall(r"\{([\d,]+)\}", listed[1])]
    return [devices]
