"""Plots of matplotlib as SVG elements of a page, with text as text, colours of the page, and tooltips for marks.

matplotlib writes a stand-alone document: a prolog, namespaces, ids that are not unique in a page, fixed fonts and
colours. `inline` removes what the page supplies, and adds a ``<title>`` to each mark that has a tooltip.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
import xml.etree.ElementTree as ET
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from fastxent import names
from fastxent.results.report.palette import PALETTE

_SVG: Any = {
    "svg.fonttype": "none",  # keep text as text: searchable, in the font of the reader
    "svg.hashsalt": "fastxent",  # equal plots are equal bytes
    "text.parse_math": False,  # a slice named "$x$" is not a formula
}
_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}
_HREF = "{http://www.w3.org/1999/xlink}href"
_MARKS = ("path", "use")


class Drawing(Figure):
    """A matplotlib figure with tooltips: ``tips[gid]`` has one text per mark of the artist with that gid."""

    tips: dict[str, list[str]]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tips = {}

    def _repr_svg_(self) -> str:
        return _written(self)


def inline(plot: Drawing, label: str) -> str:
    """Return the ``<svg>`` element of a plot.

    Args:
        plot: Drawing. The plot.
        label: str. The text for screen readers.
    """
    text = _written(plot)
    prefix = f"f{hashlib.sha256(text.encode()).hexdigest()[:8]}-"
    root = ET.fromstring(text)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    for metadata in root.findall("metadata"):
        root.remove(metadata)
    _add_tips(root, plot.tips)
    defined = {element.get("id") for defs in root.iter("defs") for element in defs.iter()} - {None}
    for element in root.iter():
        if _HREF in element.attrib:
            element.set("href", element.attrib.pop(_HREF))
        if element.get("id") not in defined:
            element.attrib.pop("id", None)
        for name, value in element.attrib.items():
            if name == "id":
                element.set(name, prefix + value)
            elif name == "style":
                element.set(name, _themed(value))
            else:
                element.set(name, re.sub(r"^(url\()?#", rf"\g<0>{prefix}", value))
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    root.set("style", f"max-width: {1.5 * float(root.attrib['viewBox'].split()[2]):.0f}px")
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def printable(text: str, most: int = 200) -> str:
    """Return text from a dump for a page: without control characters and lone surrogates, and of bounded length."""
    text = names.printable(text[: most + 1]) or '""'
    return text if len(text) <= most else text[: most - 1] + "…"


def _written(figure: Figure) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context(_SVG), warnings.catch_warnings():
        # Browsers draw the glyphs that the font of matplotlib lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    return buffer.getvalue()


def _add_tips(root: ET.Element, tips: dict[str, list[str]]) -> None:
    """Add a ``<title>`` to each mark of the artists in ``tips``."""
    groups = {element.get("id"): element for element in root.iter("g")}
    for gid, texts in tips.items():
        defined = {id(mark) for defs in groups[gid].iter("defs") for mark in defs.iter()}
        marks = [mark for mark in groups[gid].iter() if mark.tag in _MARKS and id(mark) not in defined]
        for mark, text in zip(marks, texts, strict=True):
            ET.SubElement(mark, "title").text = text


def _themed(style: str) -> str:
    for name, (light, _) in PALETTE.items():
        style = style.replace(light, f"var(--{name})")
    return re.sub(r"font: *(?:\d+ )?([\d.]+px)[^;]*", r"font-size: \1", style)
