"""One sentence by hand for each row of the comparison: why it stands where it stands, where the figures say so."""

from __future__ import annotations

WHY: dict[str, str] = {}
