"""One XML file of VOC's form: the image's size, its objects, and its further fields.

Corners in the files count pixels from 1 and include both ends; here they become edges, x0 = xmin - 1,
y0 = ymin - 1, x1 = xmax, y1 = ymax, rounded to 1e-9 px so that decimals come back as they were written.
Files of tools that count from 0 have edges already: origin 0.
"""

from __future__ import annotations

import codecs
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from vertebra.ground.errors import DataError
from vertebra.ground.rules import LARGEST_SIDE, flag

Json = Any
_INT_DIGITS = 18
_ENCODING = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([^"']+)["']""")
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
# VOC's fields beyond what a detector needs; carried in conversions.
_BEFORE_BOX, _AFTER_BOX = ("pose", "truncated", "occluded", "view"), ("actions", "point", "part")
OBJECT_FIELDS = (*_BEFORE_BOX, *_AFTER_BOX)
IMAGE_FIELDS = ("folder", "source", "owner", "segmented")


@dataclass(frozen=True)
class XmlObject:
    """One object; edges: x0 y0 x1 y1, floats. extras: its other fields by tag, as JSON values."""

    name: str
    edges: tuple[float, float, float, float]
    difficult: bool
    extras: dict[str, Json]


@dataclass(frozen=True)
class XmlImage:
    """One file. extras: the image's other fields by tag, as JSON values."""

    size_hw: tuple[int, int]
    objects: tuple[XmlObject, ...] = ()
    file_name: str = ""
    extras: dict[str, Json] = field(default_factory=dict)


def read_xml(path: Path, origin: int = 1, extras: bool = False) -> XmlImage:
    """Read one file. origin: what it calls the first pixel. Raises FileNotFoundError; DataError."""
    try:
        return parse_tree(parse_xml(path.read_bytes()), origin=origin, extras=extras)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"does not parse as VOC XML ({error})", "correct or restore it") from error


def parse_xml(content: bytes) -> ET.Element:
    """The XML in a file's bytes, in any encoding that Python knows. Raises ValueError, for entities as well.

    Entities can name other files, and a few lines of them can fill the memory; no annotation needs them.
    """
    encoding = "utf-8-sig"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif declared := _ENCODING.match(content):  # readable as ASCII, it is not one of UTF-16's, whatever it says
        name = declared[1].decode("latin-1")
        encoding = encoding if name.lower().startswith(("utf-16", "ucs-2")) else name
    try:
        text = content.decode(encoding)
        if "<!ENTITY" in text:
            raise ValueError("it declares entities, which are not read")
        return ET.fromstring(text)
    except LookupError:
        raise ValueError(f"its encoding {encoding!r} is not known") from None
    except ET.ParseError as error:
        raise ValueError(str(error)) from error


def parse_tree(tree: ET.Element, *, origin: int = 1, extras: bool = False) -> XmlImage:
    """Return the content of a file. Raises ValueError, which names what is missing or no number."""
    height, width = _number(tree, "size/height"), _number(tree, "size/width")
    if not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE):
        raise ValueError(f"its size is {width:g} x {height:g}")
    size_hw = (int(height), int(width))
    objects = tuple(_object(element, origin, extras) for element in tree.findall("object"))
    more = _fields(tree, ("object", "filename", "size")) if extras else {}
    if extras and (depth := tree.findtext("size/depth")) is not None:
        more["depth"] = _leaf(depth)
    return XmlImage(size_hw, objects, (tree.findtext("filename") or "").strip(), more)


def names_in(files: Iterable[Path]) -> set[str]:
    """All names that objects bear in these files; those that do not parse are passed over."""
    names: set[str] = set()
    for path in files:
        try:
            names |= {(one.findtext("name") or "").strip() for one in parse_xml(path.read_bytes()).iter("object")}
        except (OSError, ValueError):
            continue  # not of this image set, or among its faults already
    return names - {""}


Written = tuple[str, Sequence[float], bool, dict[str, Json]]  # name, box x y w h, difficult, fields of OBJECT_FIELDS


def xml_text(file_name: str, size_hw: tuple[int, int], objects: Iterable[Written], extras: dict[str, Json]) -> str:
    """The file's text, fields in VOC's order, indented as VOC's. extras: IMAGE_FIELDS, and depth."""
    height, width = size_hw
    root = ET.Element("annotation")
    _append(root, "folder", extras.get("folder"))
    _append(root, "filename", file_name)
    _append(root, "source", extras.get("source"))
    _append(root, "owner", extras.get("owner"))
    _append(root, "size", {"width": width, "height": height, "depth": extras.get("depth", 3)})
    _append(root, "segmented", extras.get("segmented", 0))
    for name, xywh, difficult, more in objects:
        element = ET.SubElement(root, "object")
        _append(element, "name", name)
        for tag in _BEFORE_BOX:
            _append(element, tag, more.get(tag))
        _append(element, "difficult", int(difficult))
        _append(element, "bndbox", dict(zip(CORNERS, inclusive_corners(xywh))))
        for tag in _AFTER_BOX:
            _append(element, tag, more.get(tag))
    ET.indent(root, "\t")
    return ET.tostring(root, encoding="unicode") + "\n"


def inclusive_corners(xywh: Iterable[float]) -> list[str]:
    """xmin ymin xmax ymax as text, counted from 1: whole where they are whole, else with all their decimals."""
    x, y, width, height = (Decimal(repr(float(value))) for value in xywh)
    return [_decimal(value) for value in (x + 1, y + 1, x + width, y + height)]


def _decimal(value: Decimal) -> str:
    text = format(value, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def _object(element: ET.Element, origin: int, extras: bool) -> XmlObject:
    """Only the object's own box: its parts have boxes as well."""
    name = (element.findtext("name") or "").strip()
    if not name or element.find("bndbox") is None:
        raise ValueError(f"object {name!r} lacks a name or a bndbox")
    xmin, ymin, xmax, ymax = (_number(element, f"bndbox/{corner}") for corner in CORNERS)
    edges = (round(xmin - origin, 9), round(ymin - origin, 9), xmax, ymax)
    difficult = flag("difficult", element.findtext("difficult") or "")
    return XmlObject(name, edges, difficult, _fields(element, ("name", "bndbox", "difficult")) if extras else {})


def _number(element: ET.Element, tag: str) -> float:
    text = element.findtext(tag)
    if text is None:
        raise ValueError(f"{tag} is missing")
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{tag} is {text.strip()!r}, not a number") from None


def _fields(element: ET.Element, known: tuple[str, ...]) -> dict[str, Json]:
    """The children beside the known ones; a tag that occurs again becomes a list."""
    fields: dict[str, Json] = {}
    for child in element:
        if child.tag in known:
            continue
        value = _fields(child, ()) if len(child) else _leaf(child.text or "")
        if child.tag not in fields:
            fields[child.tag] = value
        elif isinstance(fields[child.tag], list):
            fields[child.tag].append(value)
        else:
            fields[child.tag] = [fields[child.tag], value]
    return fields


def _leaf(text: str) -> int | str:
    """Numbers that are written as Python would write them become ints, so that they go back the same."""
    text = text.strip()
    is_whole = text.isascii() and text.removeprefix("-").isdigit() and len(text) <= _INT_DIGITS
    return int(text) if is_whole and str(int(text)) == text else text


def _append(parent: ET.Element, tag: str, value: Json) -> None:
    if value is None:
        return
    if isinstance(value, list):
        for one in value:
            _append(parent, tag, one)
        return
    child = ET.SubElement(parent, tag)
    if isinstance(value, dict):
        for inner, one in value.items():
            _append(child, inner, one)
    else:
        text = str(int(value)) if isinstance(value, bool) else str(value)
        child.text = _NO_XML.sub(" ", text)  # control characters, which no parser takes back
