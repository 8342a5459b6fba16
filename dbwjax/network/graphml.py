"""GraphML: one graph, its nodes, and its links with their attributes as text.

networkx reads it too, but overwrites links of one id, leaves defaults out and takes the first of several graphs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from dbwjax.network.tables import quoted

Edge = tuple[str, str, str, dict[str, str]]
"""Where, source, target, attributes."""

_OTHER_ENCODING = re.compile(r"""\s*<\?xml[^>]*encoding\s*=\s*["'](?!utf-?8["']|(?:us-)?ascii["'])""", re.IGNORECASE)


def read_graphml(path: str, text: str) -> tuple[list[str], list[Edge], bool]:
    """The names of the nodes, the links, and whether these are directed. Attributes of nodes are not read.

    Raises:
      ValueError: not GraphML, a document type (which may hold entities), another encoding than UTF-8, several graphs or
        none, hyperedges, ports, or links of both kinds.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError(f"{path} has a document type or entities, which are not read; take <!DOCTYPE and <!ENTITY out")
    if _OTHER_ENCODING.match(text):
        raise ValueError(f"{path} is not in UTF-8; save it as UTF-8")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as .graphml: {error}") from error
    found = [element for element in root.iter() if _tag(element) == "graph"]
    if _tag(root) != "graphml" or len(found) != 1:
        raise ValueError(f"{path} holds {len(found)} graphs in {quoted(_tag(root))}; write one in <graphml>")
    odd = {"hyperedge", "port"} & {_tag(element) for element in root.iter()}
    if odd:
        raise ValueError(f"{path} has a {odd.pop()}; write links between two nodes")
    graph = found[0]
    default = graph.get("edgedefault")
    if default not in ("directed", "undirected"):
        raise ValueError(f"{path}: edgedefault is {quoted(str(default))}; write directed or undirected")
    nodes = [_needed(path, element, "id") for element in graph if _tag(element) == "node"]
    if len(set(nodes)) < len(nodes):
        raise ValueError(f"{path}: two nodes have one id; name each once")
    edges = list(_edges(path, root, graph, set(nodes)))
    kinds = {element.get("directed", str(default == "directed").lower()) for element in _elements(graph, "edge")}
    if len(kinds) > 1 or not kinds <= {"true", "false"}:
        raise ValueError(f"{path} has directed and undirected links; write all of one kind")
    return nodes, edges, kinds == {"true"} if kinds else default == "directed"


def _edges(path: str, root: ElementTree.Element, graph: ElementTree.Element, nodes: set[str]) -> Iterator[Edge]:
    keys = {_needed(path, key, "id"): key for key in _elements(root, "key")}
    defaults = {}
    for key in keys.values():
        if key.get("for") in ("edge", "all", None):
            for element in _elements(key, "default"):
                defaults[key.get("attr.name") or key.get("id") or ""] = _text(element)
    for count, edge in enumerate(_elements(graph, "edge"), start=1):
        at = f"{path}, edge {count}"
        source, target = (_needed(at, edge, end) for end in ("source", "target"))
        for end in (source, target):
            if end not in nodes:
                raise ValueError(f"{at}: {quoted(end)} is not one of the nodes; write <node id=...> for it")
        own: dict[str, str] = {}
        for element in _elements(edge, "data"):
            if _needed(at, element, "key") not in keys:
                raise ValueError(f"{at}: there is no <key id={quoted(element.get('key', ''))}>; add it")
            key = keys[element.get("key", "")]
            if key.get("yfiles.type") is not None:  # how yEd draws it
                continue
            name = key.get("attr.name") or key.get("id") or ""
            if name in own:
                raise ValueError(f"{at}: {quoted(name)} is given twice; keep one")
            own[name] = _text(element)
        yield at, source, target, defaults | own


def _elements(parent: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    return [element for element in parent if _tag(element) == tag]


def _tag(element: ElementTree.Element) -> str:
    """A tag without its namespace."""
    return element.tag.rpartition("}")[2]


def _text(element: ElementTree.Element) -> str:
    return "".join(element.itertext()).strip(" \t\r\n")


def _needed(at: str, element: ElementTree.Element, name: str) -> str:
    found = element.get(name)
    if found is None:
        raise ValueError(f"{at}: a <{_tag(element)}> has no {name}; write one")
    return found
