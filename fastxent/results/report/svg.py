"""A matplotlib figure as SVG that lives inside a page: its text is text, its colours are the page's, its marks speak.

matplotlib writes a stand-alone document: a prolog, namespaces, ids that repeat from figure to figure, fixed fonts and
colours. What the page supplies is taken out, and what a mark stands for is put in as its ``<title>``.
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
    "svg.fonttype": "none",  # text stays text: searchable, in the reader's font
    "svg.hashsalt": "fastxent",  # the same figure is the same bytes
    "text.parse_math": False,  # a slice named "$x$" is that, not a formula
}
_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}
_HREF = "{http://www.w3.org/1999/xlink}href"
_MARKS = ("path", "use")


class Drawing(Figure):
    """A figure that knows what its marks stand for: ``tips[gid]`` has one text for each mark of an artist."""

    tips: dict[str, list[str]]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tips = {}

    def _repr_svg_(self) -> str:
        return _written(self)


def inline(figure: Drawing, label: str) -> str:
    """The ``<svg>`` element of a figure; ``label`` is what a screen reader says of it."""
    text = _written(figure)
    prefix = f"f{hashlib.sha256(text.encode()).hexdigest()[:8]}-"
    root = ET.fromstring(text)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    for metadata in root.findall("metadata"):
        root.remove(metadata)
    _speak(root, figure.tips)
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
    """Text from the data as a page can hold it: no control characters or lone surrogates, and not without end."""
    text = names.printable(text[: most + 1]) or '""'
    return text if len(text) <= most else text[: most - 1] + "…"


def _written(figure: Figure) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context(_SVG), warnings.catch_warnings():
        # A glyph that matplotlib's own font lacks is drawn by the reader's.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    return buffer.getvalue()


def _speak(root: ET.Element, tips: dict[str, list[str]]) -> None:
    """Give each mark of the artists named in ``tips`` its title."""
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
