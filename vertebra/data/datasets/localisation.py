"""Images of one class each with the boxes of that class: ImageNet's localisation set, and plain folders of classes.

    DIR[/ILSVRC]/Data/CLS-LOC/{train/<class>,val}/*.JPEG          the challenge's layout (He et al. 2015, appendix C)
    DIR[/ILSVRC]/Annotations/CLS-LOC/{train/<class>,val}/*.xml    or, where these are absent,
    DIR/LOC_{train,val}_solution.csv                              Kaggle's lists of boxes
    DIR[/ILSVRC]/ImageSets/CLS-LOC/{train_loc,val}.txt            which images are meant; without it all
    DIR/{train,val}/<class>/{NAME.jpg,NAME.xml}                   a plain layout: each XML beside its image

Corners are read as VOC's (xml_objects), whichever of the forms they come in. An image's class is its folder; where
images lie in no folder, that of its boxes. Boxes of other classes are passed over, and images that have no box of
their own class (more than half of ImageNet's training images) left out.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detectors.structures import Size
from vertebra.data.datasets.annotations import Classes, Images, Objects, ParsedSet, build_dataset, parse_each
from vertebra.data.datasets.catalog import check_root
from vertebra.data.datasets.faults import Fault, judge_boxes
from vertebra.data.datasets.folders import read_lines
from vertebra.data.datasets.imagenet import FOLDER_PARTS, class_folders, find_split, loose_images, read_folders
from vertebra.data.datasets.records import ClassificationDataset, DetectionDataset
from vertebra.data.datasets.strings import Strings
from vertebra.data.datasets.xml_objects import XmlImage, XmlObject, read_xml
from vertebra.data.loading.decode import decode_bytes, read_bytes, stored_size
from vertebra.ground.boxes import corners_to_sizes
from vertebra.ground.errors import DataError
from vertebra.ground.formats import counted

CLS_LOC = "CLS-LOC"
LISTS = {"train": ("train_loc",), "val": ("val",), "test": ("test",)}  # of the images that have boxes
HEADER_BYTES = 1 << 16  # of an image file, which mostly have its size


@dataclass(frozen=True, eq=False)
class LocalisationDataset:
    """The same images twice: each with its class (`images`), and with the boxes of that class (`objects`).

    objects.labels_K are images.labels_I of the box's image, plus 1; every image has a box. objects.image_ids_I: places
    among all images of the split, boxes or not.
    """

    images: ClassificationDataset
    objects: DetectionDataset
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.images.class_names

    @property
    def source(self) -> str:
        return self.objects.source

    def subset(self, indices: Sequence[int] | np.ndarray) -> LocalisationDataset:
        """The images at these places."""
        return LocalisationDataset(self.images.subset(indices), self.objects.subset(indices), self.notes)

    def fingerprint(self) -> str:
        """sha256 over classes, image list, labels and boxes."""
        return self.objects.fingerprint()

    def boxes_K4(self) -> np.ndarray:
        """float32 x0 y0 x1 y1 of all objects, in the order of objects.starts, clipped to their images."""
        whole_K4 = self.objects.sizes_hw_I2[self.objects.owners_K][:, [1, 0, 1, 0]]
        corners_K4 = self.objects.bbox_xywh_K4.copy()
        corners_K4[:, 2:] += corners_K4[:, :2]
        return np.clip(corners_K4, 0, whole_K4).astype(np.float32)


@dataclass(frozen=True)
class _Labelled:
    """An image with boxes of its class: its place among all, its label, and the edges x0 y0 x1 y1 of those boxes."""

    place: int
    label: int
    size_hw: Size
    edges_K4: Sequence[tuple[float, ...]]


def open_localisation(root: Path | str, split: str) -> LocalisationDataset:
    """The images of `split` ("train", "val") that have boxes of their class. Raises DataError."""
    return read_localisation(Path(root), split).opened()


def read_localisation(root: Path, split: str) -> ParsedSet[LocalisationDataset]:
    """Return the set (None, and a fatal fault, where no image has a box) and all its faults.

    Raises DataError where there is nothing to read.
    """
    check_root(root)
    base = next((place for place in (root / "ILSVRC", root) if (place / "Data" / CLS_LOC).is_dir()), None)
    pictures = root if base is None else base / "Data" / CLS_LOC
    images = _open_images(root, pictures, split)
    whole = FOLDER_PARTS.get(split, (split,))[0]
    if base is not None:
        images = _listed(images, base / "ImageSets" / CLS_LOC, whole)
    return _build(images, _reader(root, base, images, whole))


def _open_images(root: Path, pictures: Path, split: str) -> ClassificationDataset:
    """All images of the split; those that lie in no class's folder have label -1."""
    folder = find_split(pictures, split)
    if folder is None or not (loose := loose_images(folder)):
        return read_folders(pictures, split)
    train = find_split(pictures, "train")
    mapping = _first_file(place / "LOC_synset_mapping.txt" for place in (root, root.parent))
    if train is not None and train != folder:
        names = tuple(class_folders(train))
    elif mapping is not None:
        names = tuple(sorted(line.split()[0] for line in read_lines(mapping, errors="replace")))
    else:
        raise DataError(
            folder,
            (
                f"its images lie in no class's folder, and neither {pictures / 'train'} nor "
                f"{root / 'LOC_synset_mapping.txt'} tells the classes"
            ),
            "put one of them there",
        )
    files = Strings(f"{folder.name}/{name}" for name in loose)
    return ClassificationDataset(pictures, split, names, files, np.full(len(files), -1, np.int64))


def _listed(images: ClassificationDataset, lists: Path, split: str) -> ClassificationDataset:
    """Those images that the challenge's list of the split names, if there is one."""
    path = _first_file(lists / f"{name}.txt" for name in LISTS.get(split, ()))
    if path is None:
        return images
    wanted = {line.split()[0].rpartition("/")[2] for line in read_lines(path)}
    stems = [Path(name).stem for name in images.file_names]
    chosen = [place for place, stem in enumerate(stems) if stem in wanted]
    absent = wanted - set(stems)
    if absent:
        raise DataError(
            path,
            f"lists {counted(len(absent), 'image')} absent from {images.root}, such as {min(absent)}",
            "restore them, or unlist them",
        )
    return images.subset(chosen)


def _reader(
    root: Path, base: Path | None, images: ClassificationDataset, split: str
) -> Callable[[int], XmlImage | None]:
    """Return what reads an image's size and objects by its place, from XML or Kaggle's list; None: it has none.

    It raises DataError.
    """
    names = images.file_names
    if base is None:
        return lambda place: _from_xml([(images.root / names[place]).with_suffix(".xml")])
    folder = base / "Annotations" / CLS_LOC
    if (folder / split).is_dir():
        return lambda place: _from_xml(
            [(folder / names[place]).with_suffix(".xml"), folder / split / f"{Path(names[place]).stem}.xml"]
        )
    path = _first_file(place / f"LOC_{split}_solution.csv" for place in (root, base, base.parent))
    if path is None:
        raise DataError(
            folder / split, f"no such folder, and no LOC_{split}_solution.csv in {root}", "boxes come from one of them"
        )
    boxes = _read_solution(path)
    return lambda place: _from_list(boxes.get(Path(names[place]).stem), images.path(place))


def _first_file(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _from_xml(paths: Sequence[Path]) -> XmlImage | None:
    """The first of these files that is there."""
    for path in paths:
        with suppress(FileNotFoundError):
            return read_xml(path)
    return None


def _read_solution(path: Path) -> dict[str, tuple[XmlObject, ...]]:
    """Objects by image of a LOC_*_solution.csv: ImageId, and `class xmin ymin xmax ymax` for each. Raises DataError."""
    boxes: dict[str, tuple[XmlObject, ...]] = {}
    number = 0
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            for number, line in enumerate(csv.reader(file), start=1):
                words = line[1].split() if len(line) == 2 else []
                if number == 1:  # the names of the columns
                    continue
                if not words or len(words) % 5:
                    raise ValueError
                boxes[line[0]] = tuple(_object(*words[at : at + 5]) for at in range(0, len(words), 5))
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check its permissions") from error
    except UnicodeDecodeError as error:
        raise DataError(path, f"is not text ({error})", "restore it") from None
    except (ValueError, csv.Error):
        reason = f"line {number} is not `image,class xmin ymin xmax ymax ...`"
        raise DataError(path, reason, "correct or restore it") from None
    return boxes


def _object(name: str, *corners: str) -> XmlObject:
    """Corners as VOC's, like those of the XML files, to edges. Raises ValueError."""
    x0, y0, x1, y1 = (float(corner) for corner in corners)
    return XmlObject(name, (x0 - 1, y0 - 1, x1, y1), False, {})


def _from_list(objects: tuple[XmlObject, ...] | None, image: Path) -> XmlImage | None:
    """The list has no sizes: the image's header has."""
    if objects is None:
        return None
    try:
        with open(image, "rb") as file:
            size_hw = stored_size(file.read(HEADER_BYTES))
    except OSError as error:
        raise DataError(image, f"cannot be read ({error.strerror})", "restore it") from error
    if size_hw is None:
        content = read_bytes(image)
        height, width = stored_size(content) or decode_bytes(content, image).shape[:2]
        size_hw = height, width
    return XmlImage(size_hw, objects)


def _label_of_objects(objects: Sequence[XmlObject], label_of: Mapping[str, int], image: Path) -> int:
    """The class of an image in no class's folder. Raises DataError unless its objects have one class, a known one."""
    names = sorted({one.name for one in objects})
    if len(names) == 1 and names[0] in label_of:
        return label_of[names[0]]
    what = f"objects of {' and '.join(names[:3])}" if len(names) > 1 else f"the unknown class {names[0]}"
    raise DataError(image, f"has {what}, and is in no class's folder", "sort it into a folder")


def _build(images: ClassificationDataset, read: Callable[[int], XmlImage | None]) -> ParsedSet[LocalisationDataset]:
    label_of = {name: label for label, name in enumerate(images.class_names)}

    def parse(place: int) -> _Labelled | None:
        if (image := read(place)) is None:
            return None
        label = int(images.labels_I[place])
        if label < 0 and image.objects:
            label = _label_of_objects(image.objects, label_of, images.path(place))
        edges_K4 = [one.edges for one in image.objects if label_of.get(one.name) == label]
        return _Labelled(place, label, image.size_hw, edges_K4)

    parsed, faults = parse_each(range(len(images)), parse)
    annotated = [one for one in parsed if one is not None]
    found = [one for one in annotated if one.edges_K4]
    places_I = np.array([one.place for one in found], np.int64)
    labels_I = np.array([one.label for one in found], np.int64)
    sizes_I2 = np.array([one.size_hw for one in found], np.int64).reshape(-1, 2)
    owners_K = np.repeat(np.arange(len(found)), [len(one.edges_K4) for one in found])
    edges_K4 = np.array([edges for one in found for edges in one.edges_K4], np.float64).reshape(-1, 4)
    xywh_K4 = corners_to_sizes(edges_K4)
    keep_K, wrong_boxes = judge_boxes(
        xywh_K4, sizes_I2[owners_K], lambda k: "its annotation", lambda k: images.path(places_I[owners_K[k]])
    )
    faults += wrong_boxes
    has_box_I = np.bincount(owners_K[keep_K], minlength=len(found)) > 0
    if not has_box_I.any():
        if not any(fault.fatal for fault in faults):
            faults.append(_without_boxes(images, bool(annotated)))
        return ParsedSet(None, faults)
    notes = []
    if left_out := len(images) - int(has_box_I.sum()):
        where = images.root / images.split
        notes.append(f"{where}: images without a box of their class are left out: {left_out} of {len(images)}")
    objects = build_dataset(
        images.root,
        f"{images.split} of {images.root.name}",
        Classes(images.class_names),
        Images(places_I, images.file_names.take(places_I), sizes_I2),
        Objects(owners_K, xywh_K4, labels_I[owners_K] + 1, keep_K=keep_K),
    )
    labelled = replace(images.subset(places_I), labels_I=labels_I)
    dataset = LocalisationDataset(labelled, objects, tuple(notes))
    return ParsedSet(dataset.subset(np.flatnonzero(has_box_I)), faults)


def _without_boxes(images: ClassificationDataset, annotated: bool) -> Fault:
    where = images.root / images.split
    if annotated:
        return Fault(where, "no image has a box of its own class", "give objects the names of their images' folders")
    return Fault(
        where,
        f"none of its images ({len(images)}) has an annotation",
        "put an XML file beside each, or give the directory that holds ILSVRC's Data and Annotations",
    )
