"""What a run is asked to cite: this library, and the papers behind its policies."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from dbwjax import specs
from dbwjax.experiments.config import TrainConfig
from dbwjax.limits import shown
from dbwjax.policies import POLICIES, build_policy

YEAR = 2026
"""Of the version, as in CHANGELOG.md."""


def citation(config: TrainConfig | str | Sequence[str]) -> str:
    """BibTeX entries for what a run used: the library, then each paper behind its policies, once, in their order.

    Delay laws, optimisers, models and data sets have papers of their own, which are not among them.

    Args:
      config: of a run, or the SPEC of a policy, or several.

    Returns:
      Text for a `.bib` file.

    Raises:
      ValueError: no policy, an unknown one, or a SPEC that it refuses.
    """
    named = getattr(config, "policies", config)
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, Sequence) or not named:
        raise ValueError(f"{shown(config)} names no policy; give a TrainConfig, a SPEC, or a list of SPECs")
    fields = {"title": f"dbwjax: {_ABOUT}", "version": version("dbwjax"), "year": YEAR}
    own = ",\n".join(["@software{dbwjax", *(f"  {name} = {{{value}}}" for name, value in fields.items())]) + "\n}"
    papers: dict[str, None] = {}
    for spec in named:
        build_policy(spec)
        papers |= dict.fromkeys(paper.bibtex for paper in POLICIES[specs.parse(spec)[0]].papers)
    return "\n\n".join([own, *papers]) + "\n"


_ABOUT = "training with many workers when some of them are slow"
