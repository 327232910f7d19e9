"""Every reader of files that others wrote, with a good file for each, as targets of fuzzing.

Whatever a file holds, a reader gives a value or raises UserError. tests/test_fuzz.py tries a little of it in each run,
benchmarks/fuzz.py as much as it is given time for.
"""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from backbones import create_backbone
from tests.data.writers import picture, write_coco, write_picture, write_text, write_voc
from vertebra.build.foreign_weights import convert
from vertebra.build.weights import start_from
from vertebra.data.datasets.catalog import open_detection, parse_detection
from vertebra.data.datasets.cifar import read_batches
from vertebra.data.datasets.localisation import read_localisation
from vertebra.data.datasets.maps import Coding, read_map
from vertebra.data.datasets.semantic import open_semantic
from vertebra.data.datasets.shards import FORMAT, read_shards
from vertebra.data.datasets.xml_objects import read_xml
from vertebra.data.loading.decode import decode_bytes
from vertebra.engine.checkpoint import load_checkpoint
from vertebra.engine.weights import load_weights, save_weights
from vertebra.evaluation.metrics.files import read_predictions, read_truth
from vertebra.evaluation.report.reading import read_metrics, read_provenance, read_recipe
from vertebra.ground.parse import parse_json
from vertebra.ground.segmentations import area, faults
from vertebra.recipes.command_line import load_recipe
from vertebra.recipes.schema_detection import DetectionRecipe


@dataclass(frozen=True)
class Reader:
    """prepare: writes what stands beside the file into a new folder, and returns the file's place and good content."""

    prepare: Callable[[Path], tuple[Path, bytes]]
    read: Callable[[Path], object]


OBJECTS = [
    {"bbox": [1, 2, 30, 40], "segmentation": [[1, 2, 31, 2, 31, 42]]},
    {"bbox": [5, 6, 7, 8], "iscrowd": 1, "segmentation": {"size": [60, 80], "counts": [9, 600, 4191]}},
    {"bbox": [5, 6, 7.5, 8], "segmentation": {"size": [60, 80], "counts": "Pf4"}},
]


def _coco(root: Path) -> tuple[Path, bytes]:
    write_picture(root / "a.jpg", 60, 80)
    path = write_coco(root, {"a.jpg": (60, 80)}, OBJECTS)
    return path, path.read_bytes()


def _voc(root: Path) -> Path:
    return write_voc(root, {"1": [("dog", 1, 1, 9, 9, 0)], "2_3": [("cat", 1, 1, 9, 9, 1)]})


def _xml(root: Path) -> tuple[Path, bytes]:
    path = _voc(root) / "Annotations" / "1.xml"
    return path, b'<?xml version="1.0" encoding="utf-8"?>' + path.read_bytes()


def _list(root: Path) -> tuple[Path, bytes]:
    path = _voc(root) / "ImageSets" / "Main" / "trainval.txt"
    return path, path.read_bytes()


def _yolo(root: Path) -> None:
    write_picture(root / "images" / "a.jpg", 60, 80)
    write_text(root / "labels" / "a.txt", "0 .5 .5 .2 .2\n1 .1 .1 .9 .1 .9 .9\n")
    write_text(root / "data.yaml", "path: .\ntrain: images\nval: [images]\nnc: 2\nnames: {0: cat, 1: dog}\n")


def _yolo_label(root: Path) -> tuple[Path, bytes]:
    _yolo(root)
    return root / "labels" / "a.txt", (root / "labels" / "a.txt").read_bytes()


def _yolo_yaml(root: Path) -> tuple[Path, bytes]:
    _yolo(root)
    return root / "data.yaml", (root / "data.yaml").read_bytes()


def _yolo_list(root: Path) -> tuple[Path, bytes]:
    _yolo(root)
    write_text(root / "data.yaml", "train: list.txt\nnames: [cat, dog]\n")
    return root / "list.txt", b"images/a.jpg\n./images/a.jpg\n"


def _classes(root: Path) -> tuple[Path, bytes]:
    _yolo(root)
    (root / "data.yaml").unlink()
    return root / "classes.txt", b"cat\ndog\n"


def _index(root: Path) -> tuple[Path, bytes]:
    (root / "train-0.tar").write_bytes(bytes(4096))
    head = {"format": FORMAT, "images": 2, "class_names": ["ant", "bee"]}
    line = {"shard": "train-0.tar", "bytes": 4096, "sha256": "0", "places": [0, 1], "names": ["a.jpg", "b.jpg"]}
    line |= {"labels": [0, 1], "offsets": [512, 2048], "lengths": [9, 9]}
    return root / "train.index.jsonl", f"{json.dumps(head)}\n{json.dumps(line)}\n".encode()


def _predictions(root: Path) -> tuple[Path, bytes]:
    write_coco(root, {"a.jpg": (60, 80)}, OBJECTS)
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    found = [{**box, "segmentation": OBJECTS[2]["segmentation"]}]
    return root / "found.json", json.dumps(found).encode()


def _read_predictions(path: Path) -> object:
    return read_predictions(path, read_truth(path.with_name("ann.json")), needs="segmentation")


def _recipe(root: Path) -> tuple[Path, bytes]:
    return (
        root / "config.yaml",
        b"backbone: r50\nsolver: {lr: 0.02, iterations: 9}\ninput:\n  shorter_side: [600, 800]\n",
    )


def _solution(root: Path) -> tuple[Path, bytes]:
    for folder in ("Data/CLS-LOC/train/n1", "Data/CLS-LOC/val/n1"):
        write_picture(root / folder / "a.jpg", 60, 80)
    return root / "LOC_train_solution.csv", b"ImageId,PredictionString\na,n1 1 2 30 40 n1 5 6 7 8\n"


def _cifar(root: Path) -> tuple[Path, bytes]:
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1], b"filenames": [b"a.png", b"b.png"]}
    content = pickle.dumps(batch, protocol=2)
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (folder / name).write_bytes(content)
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"ant", b"bee"]}, protocol=2))
    return folder / "test_batch", content


def _weights(root: Path) -> tuple[Path, bytes]:
    content = io.BytesIO()
    torch.save({"model": {"a": torch.zeros(2)}, "iteration": 3}, content)
    return root / "a.pt", content.getvalue()


SMALL = create_backbone("cifar_r8", num_classes=2, width=0.5)  # 27 tensors


def _weights_of_others(root: Path) -> tuple[Path, bytes]:
    arrays = {name.replace("fc.", "linear."): tensor.numpy() for name, tensor in SMALL.state_dict().items()}
    return root / "a.pkl", pickle.dumps({"state_dict": arrays, "epoch": 1}, protocol=2)


def _read_weights_of_others(path: Path) -> object:
    return convert(load_weights(path)[0], SMALL, path, form="akamaster")


def _safetensors(root: Path) -> tuple[Path, bytes]:
    path = root / "a.safetensors"
    save_weights(path, {"fc.bias": torch.zeros(2)}, {"backbone": SMALL.identity(), "class_names": ["ant", "bee"]})
    return path, path.read_bytes()


def _read_safetensors(path: Path) -> None:
    state, origin = load_weights(path)
    start_from(copy.deepcopy(SMALL), {**SMALL.state_dict(), **state}, origin, path)


def _encoded(extension: str) -> Callable[[Path], tuple[Path, bytes]]:
    return lambda root: (root / f"a{extension}", cv2.imencode(extension, picture(20, 30))[1].tobytes())


def _metrics(root: Path) -> tuple[Path, bytes]:
    return root / "metrics.jsonl", b'{"iteration": 1, "loss": 0.5}\n{"iteration": 2, "AP": 1.5}\n'


def _provenance(root: Path) -> tuple[Path, bytes]:
    return root / "provenance.json", b'{"finished": true, "commit": "abc"}'


def _rle(root: Path) -> tuple[Path, bytes]:
    return root / "rle.json", json.dumps([one["segmentation"] for one in OBJECTS]).encode()


def _read_rle(path: Path) -> object:
    try:
        values = parse_json(path.read_bytes())
    except ValueError:
        return None
    values = values if isinstance(values, list) else [values]
    wrong = {place for place, *_ in faults(values, [(60, 80)] * len(values), polygons=True)}
    return [area(value, (60, 80)) for place, value in enumerate(values) if place not in wrong]


def _map(root: Path) -> tuple[Path, bytes]:
    content = io.BytesIO()
    image = Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30) % 21)
    image.putpalette(bytes(range(63)))
    image.save(content, "PNG")
    return root / "map.png", content.getvalue()


def _map_classes(root: Path) -> tuple[Path, bytes]:
    for folder in ("images", "masks"):
        write_picture(root / folder / "a.png", 60, 80)
    return root / "classes.txt", b"road 0 0 255\nlake 1 2 3\nignored 9 9 9\n"


READERS = {
    "COCO JSON": Reader(_coco, lambda path: parse_detection(path.parent, f"json:{path}").opened()),
    "VOC XML": Reader(_xml, lambda path: read_xml(path, extras=True)),
    "VOC set": Reader(_xml, lambda path: open_detection(path.parents[2], "voc2007/trainval", extras=True)),
    "ImageSets list": Reader(_list, lambda path: open_detection(path.parents[3], "voc2007/trainval")),
    "YOLO label": Reader(_yolo_label, lambda path: open_detection(path.parents[1], "yolo:data.yaml/train")),
    "YOLO data.yaml": Reader(_yolo_yaml, lambda path: open_detection(path.parent, "yolo:data.yaml/train")),
    "YOLO list": Reader(_yolo_list, lambda path: open_detection(path.parent, "yolo:data.yaml/train")),
    "YOLO classes": Reader(_classes, lambda path: open_detection(path.parent, f"yolo:{path.parent}")),
    "semantic map": Reader(_map, lambda path: read_map(path, Coding.of({label: label for label in range(21)}))),
    "maps' classes": Reader(_map_classes, lambda path: open_semantic(path.parent, f"maps:{path.parent}")),
    "shards' index": Reader(_index, lambda path: read_shards(str(path), "train")),
    "predictions": Reader(_predictions, _read_predictions),
    "truth": Reader(_coco, lambda path: read_truth(path, needs="segmentation")),
    "RLE": Reader(_rle, _read_rle),
    "recipe": Reader(_recipe, lambda path: load_recipe(DetectionRecipe, path)),
    "run's config.yaml": Reader(_recipe, read_recipe),
    "run's metrics": Reader(_metrics, read_metrics),
    "run's provenance": Reader(_provenance, lambda path: read_provenance(path.parent)),
    "Kaggle's boxes": Reader(_solution, lambda path: read_localisation(path.parent, "train")),
    "CIFAR batch": Reader(_cifar, lambda path: read_batches(path.parents[1], "test")),
    "checkpoint": Reader(_weights, load_checkpoint),
    "weights of others": Reader(_weights_of_others, _read_weights_of_others),
    "safetensors": Reader(_safetensors, _read_safetensors),
    "JPEG": Reader(_encoded(".jpg"), lambda path: decode_bytes(path.read_bytes(), path)),
    "PNG": Reader(_encoded(".png"), lambda path: decode_bytes(path.read_bytes(), path)),
}

WORD = re.compile(rb'"[^"]*"|[\w.+-]+')
ODD = (
    *(b"null", b"true", b"NaN", b"Infinity", b"-1", b"0", b"1e999", b"1e-320", b"9" * 20, b"9" * 5000),
    *(b"[]", b"{}", b"[[]]", b'""', b'"\\ud800"', b'"\\u0000"', b'"../../x"', b'"\xff"', b"[" * 2000),
    *(b"", b"<", b"&a;", b"<!DOCTYPE a [", b"\x00", b"\xff\xfe", b"!!python/name:os.system", b"*a", b": ", b"\n"),
    *(b"1.5", b"2147483648", b"&a", b"nan", b"inf", b"1_0", b"\xd9\xa3"),
    *(b"[" * 900 + b"]" * 900, b"- " * 900),
    *(b"/dev/zero", b"..", b"%s{}", b"size", b"counts", b"id", b"iscrowd"),
)  # fmt: skip
Edit = tuple[int, int, bytes]  # which word or byte, how many go, what comes


def mutated(seed: bytes, words: Sequence[Edit], edits: Sequence[Edit]) -> bytes:
    """Return the seed with words, then bytes, replaced: the former mostly keep a text's form."""
    for place, count, odd in words:
        spans = [match.span() for match in WORD.finditer(seed)]
        if spans:
            first = spans[place % len(spans)][0]
            last = spans[min(place % len(spans) + count // 4, len(spans) - 1)][1]
            seed = seed[:first] + odd + seed[last:]
    for place, count, odd in edits:
        at = place % (len(seed) + 1)
        seed = seed[:at] + odd + seed[at + count :]
    return seed
