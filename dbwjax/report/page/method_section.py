"""How a page's numbers came about: method, assumptions, settings, words, papers."""

from __future__ import annotations

from dbwjax.report.page.document import Section, render
from dbwjax.report.page.material import Material

GLOSSARY = {
    "policy": "who waits for whom: a waiting rule, or a whole method such as a parameter server",
    "SPEC": "how a policy, graph or delay law is written: a name, or a name with settings, as in fastest:k=6",
    "virtual time": "the seconds that a cluster with these delays would need; not those of this computer",
    "world": "one draw of delays, batches, initial parameters, partition and random graph; all rules run in the same",
    "backup worker": "a neighbour whose message an iteration does not wait for",
    "barrier": "where workers wait for each other: global, for all of them, or neighbours, for those they hear",
    "late worker": "one that has not finished when the iteration ends; late=carry lets it go on, late=drop discards",
    "staleness": "updates of the model between the start of a gradient and its use",
    "interval": "95 %, Student's over independent draws of delays, of paired logarithms where it is a ratio; each by "
    "itself, not all together",
}


def method_section(material: Material) -> Section:
    """Method, assumptions, what differs from the preset, glossary and citations."""
    return Section(
        "method",
        "Method and settings",
        render(
            "method.html",
            rule=material.summary["rule"],
            target=material.summary["target_accuracy"],
            timing=material.summary["kind"] == "timing",
            provenance=material.provenance,
            glossary=GLOSSARY,
        ),
    )
