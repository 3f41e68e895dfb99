"""A figure's SVG as part of a page: with unique ids, in the page's ink, without scripts and outside links."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_DROPPED = {f"{{{SVG}}}{name}" for name in ("metadata", "style", "script", "title", "foreignObject")}


def inline(svg: str, prefix: str, ink: str) -> str:
    """The ``<svg>`` element alone, ready to stand inside HTML.

    ``prefix`` is put before every id; ``ink``, the one color (#rrggbb) of the drawing's text and axes, becomes the
    page's ``--ink``, so that the dark page shows it too. The drawing's own size is kept as the CSS variables
    ``--width`` and ``--height``.
    """
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in _DROPPED or not isinstance(child.tag, str):
                parent.remove(child)
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            kept = _attribute(name, value, prefix, ink)
            del element.attrib[name]
            if kept is not None:
                element.set(name, kept)
    width, height = (root.attrib.pop(side, "100%") for side in ("width", "height"))
    root.set("style", f"--width: {width}; --height: {height}")
    return ET.tostring(root, encoding="unicode")


def _attribute(name: str, value: str, prefix: str, ink: str) -> str | None:
    if name.rpartition("}")[2].startswith("on"):
        return None
    if name in ("href", _LINK):
        return f"#{prefix}{value[1:]}" if value.startswith("#") else value if value.startswith("data:image/") else None
    if name == "id":
        return prefix + value
    value = re.sub(r"url\(#", f"url(#{prefix}", value)
    if name == "style":
        return re.sub(re.escape(ink), "var(--ink)", value, flags=re.IGNORECASE)
    # a CSS variable is valid in a style alone, and currentColor is the ink wherever the page's text is
    return "currentColor" if value.lower() == ink.lower() else value
