"""A list of objects in a JSON file of COCO's form, its fields judged by `rules`: for readers and scorers alike.

Legend: K entries.
"""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import compress, repeat
from operator import itemgetter
from typing import Any

import numpy as np

from vertebra.ground import rules, segmentations
from vertebra.ground.formats import counted

Entry = dict[str, Any]
Size = tuple[Any, Any]  # height, width
MASKS = "segmentation"
Report = Callable[[str, str, str], None]  # which entry, what is wrong with it, how to fix it


class Entries:
    """A list of objects of a file, what is wrong with its columns, and which entries are good.

    report: is told of each kind of fault once, by its first entry; a scorer raises there, a reader goes on. An entry
    with a fault is good no more, and no other of its faults is told.
    """

    def __init__(self, what: str, values: list[Any], report: Report):
        self.what, self.report = what, report
        plain = set(map(type, values)) <= {dict}
        self.entries: list[Entry] = values if plain else [one if isinstance(one, dict) else {} for one in values]
        self.good_K = np.ones(len(values), bool)
        self.id_K: list[Any] = []  # by `ids`
        self.read: dict[str, list[Any]] = {}  # columns that do not stand in the file as they were read
        self._masks_are_judged = False
        kinds: dict[type, str] = {list: "a list", str: "a string", type(None): "null", bool: "true or false"}
        wrong = [] if plain else [place for place, one in enumerate(values) if not isinstance(one, dict)]
        self.refuse(wrong, lambda k: f"is {kinds.get(type(values[k]), 'a number')}, not an object", "remove it")

    def refuse(self, places: Sequence[int], reason: Callable[[int], str], hint: str) -> None:
        """Report those of these entries that are good yet."""
        places = [place for place in places if self.good_K[place]]
        if places:
            self.good_K[places] = False
            more = f" ({len(places)} of {counted(len(self.entries), self.what)} are so)" if places[1:] else ""
            self.report(self.name(places[0]), reason(places[0]) + more, hint)

    def name(self, place: int) -> str:
        """What an entry is called in messages."""
        entry = self.entries[place]
        image_id, file_name = entry.get("image_id"), entry.get("file_name")
        of = (
            f", image_id {image_id}"
            if rules.is_whole(image_id)
            else f", {file_name}"
            if isinstance(file_name, str)
            else ""
        )
        return f"{self.what} {place} (counted from 0{of})"

    def values(self, key: str) -> list[Any]:
        try:
            return list(map(itemgetter(key), self.entries))  # a third of the time, where all have it
        except KeyError:
            return list(map(dict.get, self.entries, repeat(key)))

    def column(self, key: str, rule: rules.Rule, *, required: bool = False) -> Any:
        """Return the values of one field; refuse the wrong ones, and where it is `required` the missing ones."""
        raw = self.values(key)
        column = rule(raw)
        values = column.values
        if required and None in raw:
            self.refuse([k for k, one in enumerate(raw) if one is None], lambda k: f"has no {key}", column.hint)
        if column.wrong:
            self.refuse(column.wrong, lambda k: f"{key} {reprlib.repr(raw[k])} {column.wanted}", column.hint)
        if not column.plain:
            self.read[key] = values.tolist() if isinstance(values, np.ndarray) else values
        return values

    def ids(self) -> list[Any]:
        """Return the entries' ids, each of which is its own."""
        values = self.column("id", rules.ids, required=True)
        if len(set(values)) < len(values):
            uses = Counter(values)
            again = [place for place, one in enumerate(values) if uses[one] > 1]
            self.refuse(again, lambda k: f"another {self.what} has the id {values[k]} too", "give each its own")
        self.id_K = values
        return values

    def known(self, key: str, listed: Entries, where: str, hint: Callable[[set[int]], str]) -> list[Any]:
        """Return ids of another list; refuse those that are not in it, without a word where the entry there is wrong.

        hint: of all the ids here.
        """
        values, known = self.column(key, rules.ids, required=True), set(listed.good(listed.id_K))
        if not known.issuperset(values):
            wrong = [place for place, one in enumerate(values) if one not in known]
            there = set(listed.id_K)
            self.good_K[[place for place in wrong if values[place] in there]] = False
            used = {one for one in values if one is not None}
            self.refuse(wrong, lambda k: f"{key} {values[k]} is not in {where}", hint(used))
        return values

    def good(self, values: Sequence[Any]) -> list[Any]:
        """Return the values of the good entries."""
        return list(values) if self.good_K.all() else list(compress(values, self.good_K.tolist()))

    def boxes(self) -> rules.FloatArray:
        """Return xywh_K4; refuse what is no box."""
        xywh_K4: rules.FloatArray = self.column("bbox", rules.boxes, required=True)
        wrong = np.flatnonzero(rules.have_negative_sides(xywh_K4)).tolist()
        hint = "a bbox is x, y, width, height, not two corners"
        self.refuse(wrong, lambda k: f"bbox {self.entries[k]['bbox']} has a negative width or height", hint)
        return xywh_K4

    def masks(self, sizes_hw: Sequence[Size], *, required: bool = False, polygons: bool = True) -> None:
        """Refuse what is no mask. sizes_hw: of each entry's image. required: of all; else of those that have any.

        polygons: may stand for RLE.
        """
        values = self.values(MASKS)
        places = [k for k in np.flatnonzero(self.good_K).tolist() if required or values[k]]
        some, sizes = [values[k] for k in places], [sizes_hw[k] for k in places]
        for k, reason, hint in segmentations.faults(some, sizes, polygons=polygons):
            self.refuse([places[k]], lambda _, reason=reason: reason, hint)  # type: ignore[misc]
        self._masks_are_judged = True

    def areas(self, xywh_K4: rules.FloatArray, sizes_hw: Sequence[Size]) -> rules.FloatArray:
        """Return the file's areas; a missing one is that of the mask, else (no mask, or a faulty one) of the box."""
        areas_K = self.column("area", rules.areas)
        missing = np.flatnonzero(np.isnan(areas_K) & self.good_K)
        if len(missing):
            areas_K[missing] = xywh_K4[missing, 2] * xywh_K4[missing, 3]
            masks = self.values(MASKS)
            places = [k for k in missing.tolist() if masks[k] and None not in sizes_hw[k]]
            some, sizes = [masks[k] for k in places], [sizes_hw[k] for k in places]
            judged = () if self._masks_are_judged else segmentations.faults(some, sizes, polygons=True)
            for k in set(range(len(places))) - {k for k, *_ in judged}:
                areas_K[places[k]] = segmentations.area(some[k], sizes[k])
            self.read["area"] = areas_K.tolist()
        return areas_K

    def corrected(self) -> list[Entry]:
        """Return the entries with what was read where the file has it otherwise."""
        if not self.read:
            return self.entries
        return [
            {**entry, **{key: values[k] for key, values in self.read.items() if values[k] is not None}}
            for k, entry in enumerate(self.entries)
        ]
