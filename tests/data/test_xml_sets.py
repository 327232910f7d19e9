"""VOC's XML as such, loose folders of it, and test sets whose annotations are not published."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.writers import records, write_picture, write_text, write_voc
from vertebra.build import detection_data
from vertebra.data.datasets.catalog import find_sources, open_detection
from vertebra.data.datasets.voc import CLASS_NAMES
from vertebra.data.datasets.xml_objects import inclusive_corners, parse_tree, read_xml, xml_text
from vertebra.data.loading.detection import detection_test_loader
from vertebra.data.loading.sampling import Share
from vertebra.data.prepare.check import check
from vertebra.data.transforms.canvases import FixedView
from vertebra.ground.errors import DataError
from vertebra.recipes.schema import DETECTION_SETS, protocol_fields
from vertebra.recipes.schema_detection import DetectionRecipe

DOG = ("dog", 48, 20, 70, 31, 0)
STAR = ("star", 1, 1, 9, 9, 0)


def test_corners_are_written_as_voc_counts_them():
    assert inclusive_corners([47, 19, 23, 12]) == ["48", "20", "70", "31"]
    assert inclusive_corners([0, 0, 80, 60]) == ["1", "1", "80", "60"]
    assert inclusive_corners([173.66, 204.76, 107.87, 238.39]) == ["174.66", "205.76", "281.53", "443.15"]
    assert inclusive_corners([-1, -0.5, 100, 1e-7]) == ["0", "0.5", "99", "-0.4999999"]


names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"]), min_size=1, max_size=9).filter(
    lambda name: name.strip() == name and "\ufffe" not in name and "\uffff" not in name
)
pixels = st.integers(-(10**6), 10**9).map(lambda number: number / 1000)
boxes = st.tuples(pixels, pixels, st.integers(1, 10**9).map(lambda n: n / 1000), st.integers(1, 10**9).map(float))
extras = st.fixed_dictionaries(
    {},
    optional={
        "pose": st.sampled_from(["Left", "Unspecified"]),
        "truncated": st.integers(0, 1),
        "part": st.lists(
            st.fixed_dictionaries({"name": st.just("head"), "bndbox": st.just({"xmin": 1, "ymin": 2})}), min_size=2
        ),
        "point": st.just({"x": 3, "y": "4.5"}),
    },
)


@given(st.lists(st.tuples(names, boxes.map(list), st.booleans(), extras), max_size=4), st.integers(1, 10**6))
def test_what_is_written_reads_back_the_same(objects: list, width: int):
    text = xml_text("a & b.jpg", (9, width), objects, {"folder": "VOC", "owner": {"name": "x"}, "segmented": 1})
    image = parse_tree(ET.fromstring(text), extras=True)
    assert image.size_hw == (9, width) and image.file_name == "a & b.jpg"
    assert image.extras == {"folder": "VOC", "owner": {"name": "x"}, "segmented": 1, "depth": 3}
    assert [one.name for one in image.objects] == [name for name, *_ in objects]
    assert [one.difficult for one in image.objects] == [difficult for _, _, difficult, _ in objects]
    assert [one.extras for one in image.objects] == [more for *_, more in objects]
    for one, (_, (x, y, w, h), _, _) in zip(image.objects, objects):
        assert one.edges == pytest.approx((x, y, x + w, y + h), abs=1e-6)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"<a>{text}</a>".encode("utf-8", "replace")))
def test_any_file_is_an_image_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "any.xml"
    path.write_bytes(content)
    with pytest.raises(ValueError):
        read_xml(path)


SIZE = "<size><width>9</width><height>9</height></size>"


def test_a_real_file_keeps_all_that_it_says(shared_data: Path):
    path = shared_data / "VOCdevkit" / "VOC2012" / "Annotations" / "2007_000027.xml"
    image = read_xml(path, extras=True)
    (person,) = image.objects
    assert person.extras["pose"] == "Unspecified" and person.extras["truncated"] == 0
    assert [part["name"] for part in person.extras["part"]] == ["head", "hand", "foot", "foot"]
    x0, y0, x1, y1 = person.edges
    objects = [(person.name, [x0, y0, x1 - x0, y1 - y0], person.difficult, person.extras)]
    again = ET.fromstring(xml_text(image.file_name, image.size_hw, objects, image.extras))

    def flat(tree: ET.Element) -> list[str]:
        return sorted(f"{child.tag}={(child.text or '').strip()}" for child in tree.iter())

    assert flat(again) == flat(ET.parse(path).getroot())


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        *((name, name) for name in ("gbk", "gb18030", "big5", "shift_jis", "euc-kr", "utf-16", "utf-8")),
        ("", "utf-8-sig"),
        ("utf-16", "utf-8"),  # as tools write that encode a text of another declaration
    ],
)
def test_whatever_python_decodes_is_read(tmp_path: Path, declared: str, encoding: str):
    declaration = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    path = tmp_path / "a.xml"
    path.write_bytes(f"{declaration}<annotation>{SIZE}<filename>\u65e5.jpg</filename></annotation>".encode(encoding))
    assert read_xml(path).file_name == "\u65e5.jpg"


LAUGHS = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'<?xml version="1.0" encoding="zip"?><annotation/>', "its encoding 'zip' is not known"),
        (f'<!DOCTYPE a [<!ENTITY a0 "ha">{LAUGHS}]><a>&a9;</a>'.encode(), "it declares entities, which are not read"),
        (b'<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><a>&f;</a>', "it declares entities"),
        (b'<!DOCTYPE a [<!ENTITY % f SYSTEM "http://127.0.0.1/f"> %f;]><a/>', "it declares entities"),
        ('<!DOCTYPE a [<!ENTITY f "ha">]><a>&f;</a>'.encode("utf-16"), "it declares entities"),
        (f"<a>{SIZE}<b>{'<c>' * 5000}{'</c>' * 5000}</b></a>".encode(), "maximum recursion depth exceeded"),
    ],
)
def test_xml_that_is_not_read_is_named_with_the_reason(tmp_path: Path, content: bytes, reason: str):
    write_text(tmp_path / "b.xml", "")
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.xml: does not parse as VOC XML \({re.escape(reason)}.*; correct or"):
        read_xml(tmp_path / "a.xml", extras=True)
    write_picture(tmp_path / "a.jpg", 9, 9)
    found = check(tmp_path, f"vocxml:{tmp_path}").faults
    assert tmp_path / "b.xml" in [fault.path for fault in found], "nor does it end a check"


def loose(folder: Path, objects: dict[str, list], *, annotations: str = "", images: str = "") -> Path:
    """XML and images of a VOC set, put into `folder` as others lay them out."""
    made = write_voc(folder.parent / "made", objects)
    for kind, place in (("Annotations", annotations), ("JPEGImages", images)):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for path in (made / kind).iterdir():
            path.rename(folder / place / path.name)
    return folder


@pytest.mark.parametrize(
    ("annotations", "images"),
    [("", ""), ("Annotations", "JPEGImages"), ("annotations", "images"), ("annotations/xmls/..", "images")],
)
def test_loose_xml_is_read_in_every_usual_layout(tmp_path: Path, annotations: str, images: str):
    folder = loose(tmp_path / "mine", {"a": [STAR, DOG], "b c": []}, annotations=annotations, images=images)
    dataset = open_detection(tmp_path, "vocxml:mine")
    assert dataset.class_names == ("dog", "star") and dataset.labels_K.tolist() == [2, 1]
    assert [record.path.is_file() for record in records(dataset)] == [True, True]
    assert records(dataset)[0].boxes_G4.tolist() == [[0, 0, 9, 9], [47, 19, 70, 31]]
    assert check(tmp_path, f"vocxml:{folder}").faults == []


@pytest.mark.parametrize("other", ["png", "bmp", "json", "txt", "npy", "jpg~"])
@pytest.mark.parametrize("source", ["vocxml:VOC2007/trainval", "voc2007/trainval"])
def test_of_several_files_of_one_name_the_photograph_is_meant(tmp_path: Path, other: str, source: str):
    folder = write_voc(tmp_path, {"a": [DOG]})
    write_text(folder / "JPEGImages" / f"a.{other}", "a mask, or a copy")
    dataset = open_detection(tmp_path, source)
    assert dataset.path(0) == folder / "JPEGImages" / "a.jpg"
    said = [f"a.jpg: lies beside a.{other}; the others are left out"]
    assert [note.rpartition("/")[2] for note in dataset.notes] == said[: other in ("png", "bmp")]


def test_of_several_images_of_one_name_the_xml_says_which_is_meant(tmp_path: Path):
    folder = write_voc(tmp_path, {"a": [DOG]})
    write_picture(folder / "JPEGImages" / "a.png", 60, 80)
    path = folder / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("<size>", "<filename>a.png</filename><size>"))
    assert open_detection(tmp_path, "voc2007/trainval").path(0).name == "a.png"


@pytest.mark.parametrize("stems", [("1_10", "11_0"), ("1", "001"), ("2008_000001", "2008000001", "x")])
def test_images_whose_numbers_are_the_same_are_two_images(tmp_path: Path, stems: tuple[str, ...]):
    write_voc(tmp_path, {stem: [DOG] for stem in stems})
    ids = open_detection(tmp_path, "voc2007/trainval").image_ids_I.tolist()
    assert len(set(ids)) == len(stems) and check(tmp_path, "voc2007/trainval").faults == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_of_an_encoding_are_no_part_of_a_name(tmp_path: Path, encoding: str):
    folder = write_voc(tmp_path, {"a": [DOG], "b": [STAR]}).rename(tmp_path / "mine")
    for path, content in ((folder / "ImageSets/Main/trainval.txt", "a\nb\n"), (folder / "classes.txt", "star\ndog\n")):
        path.write_text(content, encoding=encoding)
    dataset = open_detection(tmp_path, "vocxml:mine/trainval")
    assert dataset.class_names == ("star", "dog") and dataset.labels_K.tolist() == [2, 1]


@pytest.mark.parametrize("hidden", ["._a", ".ipynb_checkpoints/a", "@eaDir/a", "thumbnails/a", "__MACOSX/._a"])
def test_hidden_files_are_no_part_of_a_set(tmp_path: Path, hidden: str):
    folder = loose(tmp_path / "mine", {"a": [DOG]})
    write_text(folder / f"{hidden}.xml", "Mac OS X")
    write_text(folder / f"{hidden}.jpg", "Mac OS X")
    (folder / "again").symlink_to(folder)
    assert len(open_detection(tmp_path, "vocxml:mine")) == 1 and check(tmp_path, "vocxml:mine").faults == []
    assert find_sources(folder) == (f"vocxml:{folder}",)


def test_corners_that_count_from_zero_are_said_and_read(tmp_path: Path):
    loose(tmp_path / "mine", {"a": [("star", 0, 0, 80, 60, 0)], "b": [("star", 5, 5, 9, 9, 0)]})
    dataset = open_detection(tmp_path, "vocxml:mine")
    (note,) = dataset.notes
    assert dataset.bbox_xywh_K4.tolist() == [[-1, -1, 81, 61], [4, 4, 5, 5]]
    said = "begins at pixel 0, but VOC's first is 1; read it as vocxml0:mine if its tool counts from 0"
    assert f"a.xml: object 'star' {said}" in note
    dataset = open_detection(tmp_path, "vocxml0:mine")
    assert dataset.bbox_xywh_K4.tolist() == [[0, 0, 80, 60], [5, 5, 4, 4]] and dataset.notes == ()
    recipe = DetectionRecipe(dataset="vocxml", train_source="vocxml0:/there/mine", test_source="vocxml0:x/mine")
    assert protocol_fields(recipe)["train_source"] == protocol_fields(recipe)["test_source"] == "vocxml0:mine"


@pytest.mark.parametrize(("begin", "is_said"), [((1, 1, 1, 5), True), ((1, 1, 5, 5), False), ((1, 1, 1, 0), False)])
def test_a_set_read_as_from_zero_that_never_begins_there_is_said(tmp_path: Path, begin, is_said):
    loose(tmp_path / "mine", {"a": [("star", x, 9, 40, 50, 0) for x in begin]})
    said = "mine: 3 boxes begin at pixel 1 and none at pixel 0; read it as vocxml:mine if its tool counts from 1"
    assert [said in str(fault) for fault in check(tmp_path, "vocxml0:mine").faults] == [True] * is_said


def test_sets_of_other_classes_in_vocs_layout_have_their_own(tmp_path: Path):
    hat = ("hat", 1, 1, 9, 9, 0)
    write_voc(tmp_path, {"a": [DOG, hat]}, year="2028")
    assert open_detection(tmp_path, "voc2028/trainval").class_names == ("dog", "hat")
    folder = write_voc(tmp_path, {"a": [DOG, hat]})
    hint = rf"correct the name, or read a set of other classes as vocxml:{folder}/trainval"
    with pytest.raises(DataError, match=rf"'hat', which is not one of the 20 classes; {hint}"):
        open_detection(tmp_path, "voc2007/trainval")
    assert open_detection(tmp_path, f"vocxml:{folder}/trainval").class_names == ("dog", "hat")


def test_splits_share_their_classes(tmp_path: Path):
    loose(tmp_path / "train", {"a": [STAR], "b": [("arrow", 1, 1, 9, 9, 0)]})
    loose(tmp_path / "valid", {"c": [STAR]})
    for split in ("train", "valid"):
        assert open_detection(tmp_path, f"vocxml:{split}").class_names == ("arrow", "star")
    assert open_detection(tmp_path, "vocxml:valid").labels_K.tolist() == [2]
    (tmp_path / "classes.txt").write_text("star\nhole\narrow\n")
    assert open_detection(tmp_path, "vocxml:valid").class_names == ("star", "hole", "arrow")
    (tmp_path / "classes.txt").write_text("arrow\n")
    with pytest.raises(DataError, match=r"c\.xml: has an object 'star', which is not one of the 1 class"):
        open_detection(tmp_path, "vocxml:valid")


def test_image_sets_outside_of_a_devkit_are_splits(tmp_path: Path):
    folder = write_voc(tmp_path, {"1": [DOG], "2": [DOG]}).rename(tmp_path / "mine")
    (folder / "ImageSets" / "Main" / "val.txt").write_text("2\n")
    dataset = open_detection(tmp_path, "vocxml:mine/val")
    assert list(dataset.file_names) == ["JPEGImages/2.jpg"] and dataset.class_names == tuple(CLASS_NAMES)
    assert len(open_detection(tmp_path, "vocxml:mine")) == 2
    with pytest.raises(DataError, match=r"test\.txt: no such image set; it has trainval, val"):
        open_detection(tmp_path, "vocxml:mine/test")


def test_images_without_xml_are_left_out_and_said(tmp_path: Path):
    folder = loose(tmp_path / "mine", {"a": [DOG]})
    write_picture(folder / "b.png", 60, 80)
    dataset = open_detection(tmp_path, "vocxml:mine")
    assert len(dataset) == 1 and "b.png: has no XML; it is left out" in dataset.notes[0]


def test_a_folder_without_xml_is_named(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="mine: no XML in it; put the annotations there"):
        open_detection(tmp_path, "vocxml:mine")
    with pytest.raises(DataError, match="nothing: no such directory; write vocxml:DIR"):
        open_detection(tmp_path, "vocxml:nothing")


def test_names_with_spaces_are_known_by_their_annotation(tmp_path: Path):
    folder = write_voc(tmp_path, {"my dog 1": [DOG], "000002": [DOG]})
    (folder / "ImageSets" / "Main" / "trainval.txt").write_text("my dog 1\n000002  1\n")
    names = list(open_detection(tmp_path, "voc2007/trainval").file_names)
    assert names == ["VOC2007/JPEGImages/my dog 1.jpg", "VOC2007/JPEGImages/000002.jpg"]


@pytest.fixture
def voc_without_truth(tmp_path: Path) -> Path:
    """VOC2012 test as its server hands it out: images, a list, and a few XML for another competition."""
    folder = write_voc(tmp_path, {f"2008_00000{i}": [DOG] for i in range(1, 6)}, year="2012", split="test")
    for path in sorted((folder / "Annotations").iterdir())[1:]:
        path.unlink()
    return tmp_path


def test_a_test_set_whose_truth_is_not_published_is_images_alone(voc_without_truth: Path):
    dataset = open_detection(voc_without_truth, "voc2012/test")
    assert len(dataset) == 5 and not dataset.labelled and len(dataset.labels_K) == 0
    assert dataset.sizes_hw_I2.tolist() == [[60, 80]] * 5 and dataset.class_names == tuple(CLASS_NAMES)
    assert "5 images to predict on, and nothing to score against" in dataset.notes[0]
    assert dataset.coco_truth()["annotations"] == [] and check(voc_without_truth, "voc2012/test").faults == []
    (batch,) = detection_test_loader(dataset, FixedView(60, 100), Share(batch=5))
    assert batch.image_ids == (2008000001, 2008000002, 2008000003, 2008000004, 2008000005)


def test_nothing_is_trained_on_a_set_without_truth(voc_without_truth: Path):
    recipe = DetectionRecipe(data=voc_without_truth, train_source="voc2012/test")
    with pytest.raises(ValueError, match="voc2012/test: its annotations are not here, so nothing can be learnt"):
        detection_data.open_train(recipe)
    write_voc(voc_without_truth, {"000001": [DOG]})
    with pytest.raises(DataError, match="some of its parts have no annotations"):
        open_detection(voc_without_truth, "voc2007/trainval+voc2012/test")


def test_ones_own_data_set_needs_its_sources():
    recipe = DetectionRecipe(dataset="yolo", train_source="yolo:train")
    assert recipe.source("train") == "yolo:train"
    with pytest.raises(ValueError, match=r"--dataset yolo needs --test-source yolo:data\.yaml/val$"):
        recipe.source("test")
    assert protocol_fields(recipe)["train_source"] == "yolo:train"
    moved = DetectionRecipe(dataset="yolo", train_source="yolo:/elsewhere/train+vocxml:/there/mine")
    assert protocol_fields(moved)["train_source"] == "yolo:train+vocxml:mine"


def test_published_truth_that_is_missing_stays_an_error(voc_without_truth: Path):
    (voc_without_truth / "VOC2012").rename(voc_without_truth / "VOC2007")
    with pytest.raises(DataError, match=r"2008_000002\.xml: no such annotation, but test\.txt lists 2008_000002"):
        open_detection(voc_without_truth, "voc2007/test")


def test_the_papers_unions_read_as_the_paper_says(tmp_path: Path):
    """07++12 (He et al. 2015, table 8): 2007 trainval and test, 2012 trainval; tested on 2012 test."""
    write_voc(tmp_path, {"000001": [DOG]}, split="trainval")
    write_voc(tmp_path, {"000002": [DOG]}, split="test")
    write_voc(tmp_path, {"2008_000001": [DOG]}, year="2012", split="trainval")
    folder = write_voc(tmp_path, {"2008_000002": []}, year="2012", split="test")
    (folder / "Annotations" / "2008_000002.xml").unlink()

    def ids(name: str) -> list[list[int]]:
        return [open_detection(tmp_path, source).image_ids_I.tolist() for source in DETECTION_SETS[name]]

    assert ids("voc07") == [[1], [2]]
    assert ids("voc0712") == [[1, 2008000001], [2]]
    assert ids("voc0712pp") == [[1, 2, 2008000001], [2008000002]]
