"""Sets of images with a class for every pixel.

Legend: I images, H W height and width of one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vertebra.data.datasets import coco_layout
from vertebra.data.datasets.annotations import ParsedSet, common_root, names_below, repeated_ids
from vertebra.data.datasets.catalog import check_root, parse_detection
from vertebra.data.datasets.faults import Fault
from vertebra.data.datasets.folders import by_stem, bytes_of, files_below, stem_of
from vertebra.data.datasets.maps import MOST_CLASSES, Coding, Codings, palette, read_map
from vertebra.data.datasets.masks import painted
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.datasets.semantic_layouts import KNOWN, Layout, find_layout
from vertebra.data.datasets.strings import Strings
from vertebra.data.datasets.xml_sets import image_ids
from vertebra.data.loading.decode import decode_image
from vertebra.ground.errors import DataError


@dataclass(frozen=True, eq=False)  # arrays have no one truth to compare: a set is equal to itself alone
class SemanticDataset:
    """Images, and a label of each of their pixels (see vertebra.data.datasets.maps).

    file_names, map_names: I names relative to `root`; no map_names: the labels are painted from the masks of
    `instances`, of class 1 on, upon the background; without those either, the truth is not published (`labelled` is
    False). palette: colours in which labels are drawn, 256 x 3 uint8. notes: sentences on what the reader found.
    """

    root: Path
    source: str
    class_names: tuple[str, ...]
    image_ids_I: np.ndarray
    file_names: Strings
    map_names: Strings | None
    coding: Coding | Codings
    palette: np.ndarray
    instances: DetectionDataset | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.image_ids_I)

    @property
    def labelled(self) -> bool:
        return self.map_names is not None or self.instances is not None

    def path(self, index: int) -> Path:
        return self.root / self.file_names[index]

    def name(self, index: int) -> str:
        """The place of image `index`, for messages."""
        return str(self.path(index))

    def map_path(self, index: int) -> Path:
        """The file of an image's map; the image's own where there is none."""
        return self.path(index) if self.map_names is None else self.root / self.map_names[index]

    def decode(self, index: int) -> np.ndarray:
        """The pixels of image `index`, uint8 RGB HW3. Raises BadSample."""
        return decode_image(self.path(index))

    def labels(self, index: int) -> np.ndarray:
        """The labels of image `index`, HW uint8. Raises BadSample."""
        if self.instances is not None:
            return painted(self.instances, index)
        return read_map(self.map_path(index), self.coding.at(index))

    def absent(self) -> list[str]:
        """Return the names of files, pictures and maps, that are missing or empty."""
        names = [name for column in (self.file_names, self.map_names) for name in column or ()]
        return [name for name in names if not bytes_of(self.root / name)]

    def subset(self, indices: Sequence[int] | np.ndarray) -> SemanticDataset:
        """The images at these places; the fingerprint is that of the part."""
        chosen_I = np.asarray(indices, np.int64)
        return replace(
            self,
            image_ids_I=self.image_ids_I[chosen_I],
            file_names=self.file_names.take(chosen_I),
            map_names=None if self.map_names is None else self.map_names.take(chosen_I),
            coding=self.coding.take(chosen_I),
            instances=None if self.instances is None else self.instances.subset(chosen_I),
        )

    def fingerprint(self) -> str:
        """sha256 over classes, image list and maps, of these the meaning of their values and how many bytes each has.

        The same wherever the files lie. Not the maps' bytes: of a large set they are gigabytes.
        """
        one = self.coding
        table = one.table if isinstance(one, Coding) else one.facts(np.arange(len(self)))
        digest = hashlib.sha256(json.dumps([self.class_names, one.colours]).encode() + table)
        self.file_names.update_hash(digest)
        for name in self.map_names or ():
            digest.update(f"{name} {bytes_of(self.root / name)}\n".encode("utf-8", "surrogateescape"))
        if self.instances is not None:
            digest.update(self.instances.fingerprint().encode())
        return digest.hexdigest()


def open_semantic(root: Path | str, source: str) -> SemanticDataset:
    """Images with a class for every pixel.

    source: one of vertebra.data.datasets.semantic_layouts; or, with the background as class 0, the masks of instances:
    "sample/train", "coco/train2017", "json:ANNOTATIONS.json"; or several joined by "+", of the same classes. A test set
    without published maps has no labels.
    Maps are read when they are used. Raises DataError.
    """
    return parse_semantic(root, source).opened()


def parse_semantic(root: Path | str, source: str) -> ParsedSet[SemanticDataset]:
    """Return the data set that open_semantic opens, as far as it can be used, and all faults of its list of images.

    Raises DataError where there is nothing to read.
    """
    root = Path(root)
    check_root(root)
    parts = source.split("+")
    if all(map(coco_layout.is_json, parts)):
        return _of_instances(root, source)
    if parts[1:]:
        return _united([parse_semantic(root, part) for part in parts], source)
    if (layout := find_layout(root, source)) is None:
        raise DataError(f"source {source!r}", "is not known", f"write {KNOWN}")
    return _of_maps(layout, source)


def _of_maps(layout: Layout, source: str) -> ParsedSet[SemanticDataset]:
    """Pair images with maps by their names; those without a partner are left out, with a fault."""
    pictures = by_stem(files_below(layout.base / layout.images))
    names = _by_name(((stem, of_stem[0]) for stem, of_stem in pictures.items()), layout.image_end)
    pngs = (name for name in files_below(layout.base / layout.maps) if name.lower().endswith(".png"))
    maps = _by_name(((stem_of(name), name) for name in pngs), layout.map_end)
    wanted = list(names) if layout.listed is None else layout.listed
    labelled = layout.public or any(stem in maps for stem in wanted)
    faults = []
    for stem in wanted:
        if stem not in names:
            reason, hint = f"its image {stem} is not there", "restore it, or remove it from the list"
            faults.append(Fault(layout.base / layout.images, reason, hint))
        elif labelled and stem not in maps:
            hint = f"expected {layout.base / layout.maps / f'{stem}{layout.map_end}.png'}"
            faults.append(Fault(layout.base / layout.images / names[stem], "has no map", hint))
    if layout.listed is None and labelled:
        kind, hint = "maps without an image were left out", "it is left out"
        lonely = [maps[stem] for stem in maps if stem not in names]
        faults += [Fault(layout.base / layout.maps / name, "has no image", hint, False, kind) for name in lonely]
    stems = [stem for stem in wanted if stem in names and (stem in maps or not labelled)]
    dataset = SemanticDataset(
        root=layout.base,
        source=source,
        class_names=layout.class_names,
        image_ids_I=np.array(image_ids(stems, [names[stem] for stem in stems]), np.int64),
        file_names=Strings(f"{layout.images}/{names[stem]}" for stem in stems),
        map_names=Strings(f"{layout.maps}/{maps[stem]}" for stem in stems) if labelled else None,
        coding=layout.coding if layout.segments is None else layout.segments.of(stems),
        palette=layout.palette,
        notes=layout.notes,
    )
    return ParsedSet(dataset, faults)


def _united(parsed: Sequence[ParsedSet[SemanticDataset]], source: str) -> ParsedSet[SemanticDataset]:
    """Several sets of maps as one. Different classes, and images that are in two of them, are fatal faults."""
    faults = [fault for one in parsed for fault in one.faults]
    sets = [one.dataset for one in parsed if one.dataset is not None]
    if len(sets) < len(parsed):
        return ParsedSet(None, faults)
    first = sets[0]
    for other in sets[1:]:
        if other.class_names != first.class_names:
            reason = f"{first.source} and {other.source} have different classes"
            faults.append(Fault(Path(source), reason, "unite sets of the same classes, in the same order"))
    if len({(one.labelled, one.instances is None) for one in sets}) > 1 or first.instances is not None:
        reason = "some of its parts have maps, and some masks of instances or nothing"
        faults.append(Fault(Path(source), reason, "unite sets that all have maps"))
        return ParsedSet(None, faults)
    root, places = common_root([one.root for one in sets])
    maps = [one.map_names for one in sets if one.map_names is not None]
    pictures = names_below(places, [one.file_names for one in sets])
    ids_I = np.concatenate([one.image_ids_I for one in sets])
    if len(np.unique(ids_I)) < len(ids_I):  # other images may have the same stems
        ids_I = np.array(image_ids([stem_of(name) for name in pictures], list(pictures)), np.int64)
    faults += repeated_ids(ids_I, source)
    coding = Codings(
        tuple(one.coding for one in sets),
        np.repeat(np.arange(len(sets)), [len(one) for one in sets]),
        np.concatenate([np.arange(len(one)) for one in sets]),
        first.coding.colours if len({one.coding.colours for one in sets}) == 1 else (),
    )
    united = replace(
        first,
        root=root,
        source=source,
        image_ids_I=ids_I,
        file_names=pictures,
        map_names=names_below(places, maps) if maps else None,
        coding=coding,
        notes=tuple(note for one in sets for note in one.notes),
    )
    return ParsedSet(united, faults)


def _by_name(files: Iterable[tuple[str, str]], end: str) -> dict[str, str]:
    """Return files, given with their stems, by what these are without their end; those with another are no part."""
    return {stem.removesuffix(end): name for stem, name in files if stem.endswith(end)}


def _of_instances(root: Path, source: str) -> ParsedSet[SemanticDataset]:
    parsed = parse_detection(root, source)
    one, faults = parsed.dataset, list(parsed.faults)
    if one is None:
        return ParsedSet(None, faults)
    if len(one.class_names) >= MOST_CLASSES:
        reason = f"has {len(one.class_names)} classes"
        return ParsedSet(None, [*faults, Fault(Path(source), reason, f"labels have room for {MOST_CLASSES - 1}")])
    bare_K = np.ones(len(one.labels_K), bool) if one.segmentations is None else one.segmentations.empty()
    if bare_K.any():
        image = one.path(int(one.owners_K[bare_K][0]))
        reason = f"{int(bare_K.sum())} of its objects have no mask, such as one of {image}"
        faults.append(Fault(Path(source), reason, "take a set with segmentations, or one of maps"))
    if not one.labelled:
        faults.append(Fault(Path(source), "has no annotations", "take a set that has them"))
    dataset = SemanticDataset(
        root=one.root,
        source=source,
        class_names=("background", *one.class_names),
        image_ids_I=one.image_ids_I,
        file_names=one.file_names,
        map_names=None,
        coding=Coding.of({}),
        palette=palette(),
        instances=one,
        notes=one.notes,
    )
    return ParsedSet(dataset, faults)
