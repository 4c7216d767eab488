"""From a matplotlib figure to SVG that lives inside a page: in the page's colours and font, its marks reachable."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.figure import Figure

from harness.report.plots.style import COLOURS, styled

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_VARIABLES = {colour: f"var(--{name})" for name, colour in COLOURS.items()}
_HEX = re.compile(r"#[0-9a-f]{6}\b")
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_FONT = re.compile(r"font: (?:(\d+) )?([\d.]+)px [^;]*")


def inline(figure: Figure, key: str, title: str) -> Markup:
    """The figure as an `<svg>` element; `key` keeps its ids apart from those of the page's other plots.

    Colours of the palette become the page's CSS variables, text takes the page's font, and what the figure marks as a
    row's (`Mark.gid`) can be reached and opened by keyboard. All text was escaped by the XML writer.
    """
    buffer = io.StringIO()
    with styled(**{"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", dpi=144, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for unwanted in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
        _drop(root, unwanted)
    for element in root.iter():
        _restyle(element)
        _reachable(element)
    width, height = (root.attrib.pop(name).removesuffix("pt") for name in ("width", "height"))
    root.set("viewBox", f"0 0 {float(width):g} {float(height):g}")
    root.set("style", f"max-width: {float(width):.0f}px")
    root.set("role", "group")
    root.set("aria-label", title)
    root.attrib.pop("version", None)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _drop(root: ElementTree.Element, tag: str) -> None:
    for parent in list(root.iter()):
        for child in [one for one in parent if one.tag == tag]:
            parent.remove(child)


def _restyle(element: ElementTree.Element) -> None:
    for name in ("style", "fill", "stroke"):
        if text := element.get(name):
            text = _HEX.sub(lambda found: _VARIABLES.get(found[0], found[0]), text)
            element.set(name, _FONT.sub(r"font-size: \2px", text) if name == "style" else text)
    for name in ("d", "x", "y", "transform"):
        if text := element.get(name):
            element.set(name, _DECIMALS.sub(r"\1", text))


def _reachable(element: ElementTree.Element) -> None:
    """A row's mark becomes a button that names its row; other ids that nothing refers to go."""
    gid = element.get("id", "")
    if gid.startswith("row:"):
        del element.attrib["id"]
        row, _, label = gid.removeprefix("row:").partition("|")
        element.set("data-row", row)
        if element.find(f".//{{{SVG}}}text") is None:  # a label names itself and is not a second stop for the keyboard
            element.set("tabindex", "0")
            element.set("role", "button")
            element.set("aria-label", label)
        ElementTree.SubElement(element, f"{{{SVG}}}title").text = label
    elif element.tag == f"{{{SVG}}}g" and "id" in element.attrib:
        del element.attrib["id"]
