"""Whatever bytes lie in a data set's files, readers open it or say a sentence, and never raise anything else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.test_localisation import write_ilsvrc
from tests.data.writers import picture, write_picture, write_text, write_voc
from vertebra.data.datasets.catalog import open_detection
from vertebra.data.datasets.localisation import open_localisation
from vertebra.data.loading.decode import decode_image
from vertebra.ground.errors import UserError

DOG = ("dog", 1, 2, 40, 30, 0)
ODD = [b"1e999", b"-1", b"nan", b"\xef\xbb\xbf", b"\xff\xfe", b"[", b"{", b"&a ", b"*a", b"!!timestamp x", b"<!ENTITY",
       b"..", b"/", b"\0", b"x" * 300, b"9" * 20, b"\n", b" ", b": ", b"&#0;", b"\xd6\xd0"]  # fmt: skip
changes = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 20), st.sampled_from(ODD) | st.binary(max_size=8)), max_size=4
)


def write_yolo(root: Path) -> None:
    write_picture(root / "images" / "a.jpg", 60, 80)
    write_text(root / "labels" / "a.txt", "0 .5 .5 .2 .2\n1 .1 .1 .5 .1 .5 .5\n")
    write_text(root / "list.txt", "images/a.jpg\n")
    write_text(root / "data.yaml", "train: images\nval: list.txt\nkpt_shape: [2, 3]\nnames: {0: cat, 1: dog}\n")


def write_xml(root: Path) -> None:
    folder = write_voc(root, {"a": [DOG], "b": []})
    write_text(folder / "classes.txt", "cat\ndog\n")


def write_loc(root: Path) -> None:
    write_text(write_ilsvrc(root) / "ImageSets" / "CLS-LOC" / "train_loc.txt", "n01/n01_1 1\n")


def write_lists(root: Path) -> None:
    annotations = write_ilsvrc(root) / "Annotations"
    annotations.rename(root / "elsewhere")
    write_text(root / "LOC_train_solution.csv", "Image,Boxes\nn01_1,n01 1 1 80 60\n")


SETS: list[tuple[Callable[[Path], Any], str, Callable[[Path], Any]]] = [
    (write_yolo, "labels/a.txt", lambda root: open_detection(root, "yolo:train", extras=True)),
    (write_yolo, "list.txt", lambda root: open_detection(root, "yolo:val")),
    (write_yolo, "data.yaml", lambda root: open_detection(root, "yolo:train")),
    (write_yolo, "images/a.jpg", lambda root: open_detection(root, "yolo:train")),
    (write_xml, "VOC2007/Annotations/a.xml", lambda root: open_detection(root, "vocxml:VOC2007", extras=True)),
    (write_xml, "VOC2007/ImageSets/Main/trainval.txt", lambda root: open_detection(root, "voc2007/trainval")),
    (write_xml, "VOC2007/classes.txt", lambda root: open_detection(root, "vocxml0:VOC2007/trainval")),
    (write_loc, "ILSVRC/Annotations/CLS-LOC/train/n01/n01_1.xml", lambda root: open_localisation(root, "train")),
    (write_loc, "ILSVRC/ImageSets/CLS-LOC/train_loc.txt", lambda root: open_localisation(root, "train")),
    (write_lists, "LOC_train_solution.csv", lambda root: open_localisation(root, "train")),
]


def changed(content: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, new in edits:
        at = place % (len(content) + 1)
        content = content[:at] + new + content[at + length :]
    return content


@pytest.mark.parametrize(("write", "name", "read"), SETS, ids=[name for _, name, _ in SETS])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=changes)
def test_a_changed_file_is_read_or_named(tmp_path: Path, write: Any, name: str, read: Any, edits: list):
    if not (tmp_path / name).exists():
        write(tmp_path)
        read(tmp_path)
    original = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(changed(original, edits))
    try:
        read(tmp_path)
    except UserError as error:
        assert error.reason and error.hint
    finally:
        (tmp_path / name).write_bytes(original)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged TIFF
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".bmp", ".ppm"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=changes)
def test_a_changed_picture_is_decoded_or_named(tmp_path: Path, suffix: str, edits: list):
    path = tmp_path / f"a{suffix}"
    write_picture(path, 20, 30)
    path.write_bytes(changed(path.read_bytes(), edits))
    try:
        assert decode_image(path).shape[2] == picture(20, 30).shape[2]
    except UserError as error:
        assert error.where == str(path) and error.hint
