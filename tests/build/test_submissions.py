"""Maps in the layouts of VOC's and Cityscapes' evaluation servers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.test_semantic import write_own, write_voc_maps
from tests.data.writers import write_picture, write_text
from vertebra.build.segmenter_run import map_names
from vertebra.build.segmenter_run import write_map as write_answer
from vertebra.build.submissions import check_submission, write_submission
from vertebra.data.datasets.semantic import open_semantic
from vertebra.data.datasets.semantic_classes import CITYSCAPES
from vertebra.ground.errors import UserError


def voc(root: Path):
    base = write_voc_maps(root)
    for number, stem in enumerate(("2008_000001", "2008_000004")):
        write_picture(base / "JPEGImages" / f"{stem}.jpg", 6, 8, number)
    write_text(base / "ImageSets" / "Segmentation" / "test.txt", "2008_000001\n2008_000004\n")
    return open_semantic(root, "voc2012/test")


def cityscapes(root: Path):
    for number in (19, 20):
        write_picture(root / "leftImg8bit" / "test" / "bonn" / f"bonn_000000_{number:06}_leftImg8bit.png", 4, 5, number)
    return open_semantic(root, "cityscapes/test")


@pytest.mark.parametrize("server", ["voc", "cityscapes"])
def test_a_servers_files_hold_what_the_run_found(tmp_path: Path, server: str) -> None:
    test_set = {"voc": voc, "cityscapes": cityscapes}[server](tmp_path / "data")
    check_submission(server, test_set)
    rng, answers = np.random.default_rng(0), {}
    for name in map_names(test_set).values():
        answers[name] = rng.integers(0, len(test_set.class_names), (6, 8)).astype(np.uint8)
        write_answer(tmp_path / "run" / "maps" / name, answers[name], test_set.palette)
    home = write_submission(server, test_set, tmp_path / "run")
    inside = {"voc": "results/VOC2012/Segmentation/comp6_test_cls", "cityscapes": "results/cityscapes"}[server]
    assert home == tmp_path / "run" / inside
    written = {path.name: np.asarray(Image.open(path)) for path in home.iterdir()}
    if server == "voc":
        assert written.keys() == {"2008_000001.png", "2008_000004.png"}
        assert all(np.array_equal(written[name], answers[name]) for name in written)
        assert Image.open(home / "2008_000001.png").mode == "P", "as the server asks for"
        return
    assert written.keys() == {"bonn_000000_000019_labelIds.png", "bonn_000000_000020_labelIds.png"}
    for name, ids_HW in written.items():
        labels_HW = answers[name.replace("labelIds", "leftImg8bit")]
        assert ids_HW.tolist() == [[[*CITYSCAPES][label] for label in row] for row in labels_HW.tolist()]


def test_other_images_and_classes_are_refused(tmp_path: Path) -> None:
    own = open_semantic(tmp_path, f"maps:{write_own(tmp_path / 'own')}/train")
    with pytest.raises(UserError, match="its classes are not the 21 of voc, whose server takes no others"):
        check_submission("voc", own)
    with pytest.raises(UserError, match="its classes are not the 19 of cityscapes"):
        check_submission("cityscapes", voc(tmp_path))
    with pytest.raises(UserError, match="its image 2007_02 has no name of voc's kind"):
        check_submission("voc", open_semantic(tmp_path, "voc2012/val"))
