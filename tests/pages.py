"""Made-up material for pages."""

from __future__ import annotations

import numpy as np

from dbwjax.report.page.material import Material, Provenance
from dbwjax.report.statistics import summarise
from tests import fakes
from tests.test_statistics import hashes

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&`${1}"
"""A name that is markup wherever it is not escaped."""


def material(policies, name="made-up", workers=10, target=0.9, network=None, **options):
    """A run of these policies; `options` as for `fakes.run`."""
    rows, _, timelines = fakes.run(policies, target=target, nodes=workers, **options)
    names = sorted({row["world"] for row in rows})
    worlds = [{"world": world, "hashes": hashes(world)} for world in names]
    has_accuracy = options.get("accuracy", True)
    summary = summarise(rows, worlds, policies, policies[-1], target if has_accuracy else None)
    kept = {
        spec: {
            str(world): {**arrays, "backup_workers": np.full(len(arrays["duration"]), 1.5, np.float32)}
            for world, arrays in by.items()
        }
        for spec, by in timelines.items()
    }
    told = Provenance(
        f"python -m dbwjax.train --policies '{name}'", None, {"jax": name}, [("graph", "ring", name)], name
    )
    told = told._replace(settings=[("graph", name), ("data dir", name)], citation=name)
    return Material(name, "2026-11-29 12:00 UTC", rows, worlds, summary, kept, network or fakes.network(workers), told)
