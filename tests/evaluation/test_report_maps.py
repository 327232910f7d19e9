"""The browser of segmenters' images: its figures against naive loops, and its page in a real, headless Chromium."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from vertebra.data.datasets.maps import palette
from vertebra.evaluation.metrics.pixels import PixelCounts, confusion, counts_3C
from vertebra.evaluation.predict.segmentation import write_map
from vertebra.evaluation.report.browser.build import Browser
from vertebra.evaluation.report.browser.maps import MapSide, agreement, build_map_browser, small_png
from vertebra.evaluation.report.page import environment, text_of
from vertebra.evaluation.report.reading import ReadMap, read_labels
from vertebra.ground.errors import UserError

CLASSES = ("background", "ring", "never <b>seen</b></script>", "star")
SIZE_HW = (48, 64)
SIDES = ("first", "second <i>", "third")
PAGE = """{% extends "base.html.j2" %}{% block main %}{{ browser.markup }}{% endblock %}
{% block end %}<script>{{ browser.script }}</script>{% endblock %}"""


@dataclass
class Made:
    path: Path
    browser: Browser
    truth: list[np.ndarray]
    maps: dict[str, list[np.ndarray]]

    def page(self) -> str:
        return self.path.read_text(encoding="utf-8")


def make_page(
    directory: Path, images: int, sides: tuple[str, ...] = ("first", "second <i>", "third"), **asked: Any
) -> Made:
    """Truth of 8 x 8 blocks with ignored pixels, the last image with nothing else; each side is more often right."""
    random = np.random.default_rng(0)
    blocks = np.ones((8, 8), np.uint8)
    truth = [np.kron(random.choice([0, 1, 3, 255], (6, 8)).astype(np.uint8), blocks) for _ in range(images)]
    truth[-1][:] = 255
    maps = {name: [] for name in sides}
    listed = [{"id": 7 + n, "picture": f"{n:03}<b>&.jpg", "map": f"{n:03}.png"} for n in range(images)]
    for n, labels_HW in enumerate(truth):
        write_map(directory / "truth" / listed[n]["map"], labels_HW, palette())
        noise_HW3 = np.kron(random.integers(0, 255, (6, 8, 3)), blocks[..., None]).astype(np.uint8)
        Image.fromarray(noise_HW3).save(directory / listed[n]["picture"])
        for name, share in zip(sides, (0.4, 0.6, 0.9)):
            other_HW = random.choice([0, 1, 3], SIZE_HW)
            kept_HW = (random.random(SIZE_HW) < share) & (labels_HW != 255)
            maps[name].append(np.where(kept_HW, labels_HW, other_HW).astype(np.uint8))
            write_map(directory / name / listed[n]["map"], maps[name][-1], palette())
    made = [
        MapSide(
            name,
            reader(directory / name),
            PixelCounts.of([counts_3C(confusion(*pair, 4)) for pair in zip(truth, found)]),
        )
        for name, found in maps.items()
    ]
    pair = (0, min(1, len(sides) - 1))
    options = {"image_roots": [directory], "max_images": 500, "pair": pair, "note": "", **asked}
    browser = build_map_browser(made, listed, reader(directory / "truth"), CLASSES, **options)
    style = text_of("style.css") + Markup("\n") + browser.style
    page = environment().from_string(PAGE).render(browser=browser, style=style, report={"title": "a page"})
    (directory / "page.html").write_text(page, encoding="utf-8")
    return Made(directory / "page.html", browser, truth, maps)


def reader(folder: Path) -> ReadMap:
    return lambda place: read_labels(folder / f"{place:03}.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_page(tmp_path_factory.mktemp("maps"), 25)


def naive(truth_HW: np.ndarray, found_HW: np.ndarray) -> tuple[float, float]:
    """Return mean IoU and pixel accuracy by loops over pixels."""
    pixels = [(int(t), int(f)) for t, f in zip(truth_HW.ravel(), found_HW.ravel()) if t != 255]
    labels = {label for pair in pixels for label in pair}
    ious = [sum(t == f == one for t, f in pixels) / sum(one in pair for pair in pixels) for one in labels]
    if not pixels:
        return 100.0, 100.0
    return 100 * sum(ious) / len(ious), 100 * sum(t == f for t, f in pixels) / len(pixels)


def test_figures_and_order_are_those_of_loops_over_pixels(made: Made) -> None:
    gallery = made.browser.gallery
    assert len(gallery.images) == 25
    for facts in gallery.images:
        truth_HW = made.truth[facts.id - 7]
        for name, found in made.maps.items():
            expected = naive(truth_HW, found[facts.id - 7])
            assert (facts.mIoU[name], facts.pixel_accuracy[name]) == pytest.approx(expected, abs=0.0051)
        assert facts.difference == pytest.approx(facts.mIoU["second <i>"] - facts.mIoU["first"], abs=0.011)
    sizes = [abs(facts.difference) for facts in gallery.images]
    assert sizes == sorted(sizes, reverse=True)
    signs = [np.sign(facts.difference) for facts in gallery.images]
    assert (gallery.better_first, gallery.better_second, gallery.equal) == tuple(signs.count(s) for s in (-1, 1, 0))


def kinds(truth_HW: np.ndarray, a_HW: np.ndarray, b_HW: np.ndarray) -> list[list[str]]:
    """Return what each pixel is, by a loop."""
    found = []
    for rows in zip(truth_HW.tolist(), a_HW.tolist(), b_HW.tolist()):
        found.append([])
        for truth, a, b in zip(*rows):
            one = "right" if truth == a == b else "first" if truth == a else "second" if truth == b else "neither"
            found[-1].append("ignored" if truth == 255 else one)
    return found


def test_pixels_of_the_pair_are_counted_as_a_loop_counts_them(made: Made) -> None:
    for facts in made.browser.gallery.images:
        a, b = (made.maps[name][facts.id - 7] for name in ("first", "second <i>"))
        flat = [kind for row in kinds(made.truth[facts.id - 7], a, b) for kind in row]
        counts = [flat.count(kind) for kind in ("first", "second", "neither", "ignored")]
        assert list(facts.pixels.values()) == counts
        assert agreement(made.truth[facts.id - 7], a, b) == tuple(counts[:3])


def test_of_too_many_images_those_that_differ_most_are_shown(made: Made, tmp_path: Path) -> None:
    few = make_page(tmp_path, 25, max_images=6)
    assert len(few.browser.gallery.images) == 6 and few.browser.gallery.images[0] == made.browser.gallery.images[0]
    assert "The 6 shown here differ most" in few.page()


@pytest.mark.parametrize("labels", [1, 2, 3, 17, 150])
def test_small_maps_keep_every_label_and_ignored_pixels_are_clear(labels: int) -> None:
    map_HW = np.arange(64 * 64).reshape(64, 64).astype(np.int64) % labels
    map_HW[0, :5] = 255
    png = Image.open(io.BytesIO(small_png(map_HW.astype(np.uint8), palette(), 64))).convert("RGBA")
    expected_HW4 = np.dstack([palette()[map_HW], np.where(map_HW == 255, 0, 255)])
    clear_HW = map_HW == 255
    assert (np.asarray(png)[..., 3] == expected_HW4[..., 3]).all()
    assert (np.asarray(png)[~clear_HW] == expected_HW4[~clear_HW]).all()


def test_a_map_that_is_missing_or_of_another_size_is_a_sentence(tmp_path: Path) -> None:
    made = make_page(tmp_path, 3)
    (made.path.parent / "first" / "001.png").unlink()
    with pytest.raises(UserError, match=r"first/001.png: cannot be read .*score the run again with tools/eval_seg.py"):
        small = [MapSide("first", reader(tmp_path / "first"), counts_of(made, "first"))]
        listed = [{"id": n, "picture": "", "map": f"{n:03}.png"} for n in range(3)]
        build_map_browser(
            small, listed, reader(tmp_path / "truth"), CLASSES, image_roots=[], max_images=9, pair=(0, 0), note=""
        )
    write_map(tmp_path / "first" / "001.png", np.zeros((3, 3), np.uint8), palette())
    with pytest.raises(UserError, match="is not of the size of"):
        build_map_browser(
            small, listed, reader(tmp_path / "truth"), CLASSES, image_roots=[], max_images=9, pair=(0, 0), note=""
        )


def counts_of(made: Made, name: str) -> PixelCounts:
    return PixelCounts.of([counts_3C(confusion(*pair, 4)) for pair in zip(made.truth, made.maps[name])])


def test_five_hundred_images_make_a_page_of_moderate_size(tmp_path: Path) -> None:
    assert len(make_page(tmp_path, 500, ("first", "second <i>")).page()) < 12_000_000


def test_it_opens_asking_for_nothing_and_says_in_words_what_it_shows(made: Made, open_page: Any) -> None:
    visit = open_page(made.path)
    visit.page.locator("#cases image.differs").first.wait_for()
    assert visit.count() == "25 images"
    assert [url for url in visit.requests if not url.startswith("data:")] == [
        made.path.as_uri()
    ] and not visit.complaints
    first = made.browser.gallery.images[0]
    assert visit.files()[0] == first.file_name
    told = (
        visit.page.locator("#cases .case")
        .first.locator("svg[role=img]")
        .evaluate_all("all => all.map((one) => one.getAttribute('aria-label'))")
    )
    assert [text.removeprefix(first.file_name + ", ").split(":")[0] for text in told] == [
        "picture", "truth", "first", "second <i>", "difference"
    ]  # fmt: skip
    assert told[2].endswith(
        f"mIoU {first.mIoU['first']:.1f}, {first.pixel_accuracy['first']:.1f}\u00a0% of pixels right"
    )
    visit.page.keyboard.press("Tab")
    visit.page.locator(".enlarge").first.focus()
    visit.page.keyboard.press("Enter")
    visit.page.keyboard.press("ArrowRight")
    assert visit.page.locator("dialog h3").inner_text() == f"{visit.files()[1]}, 2 of 25"
    visit.page.keyboard.press("Escape")
    assert not visit.complaints


@pytest.mark.parametrize("sides", [("first", "second <i>"), ("third", "first")])
def test_maps_and_their_difference_in_the_page_are_those_of_the_chosen_sides(
    made: Made, open_page: Any, sides: tuple[str, str]
) -> None:
    visit = open_page(made.path)
    names = list(made.maps)
    visit.choose(sideA=str(names.index(sides[0])))
    visit.choose(sideB=str(names.index(sides[1])))
    uri = visit.page.locator("#cases image.differs").first.get_attribute("href")
    place = int(visit.files()[0][:3])
    shown = pixels_of(uri).tolist()
    expected = kinds(made.truth[place], *(made.maps[side][place] for side in sides))
    paints = {"first": [51, 153, 255, 255], "second": [255, 140, 0, 255], "neither": [190, 20, 90, 255],
              "ignored": [150, 150, 150, 255], "right": [0, 0, 0, 0]}  # fmt: skip
    assert shown == [[paints[kind] for kind in row] for row in expected]
    maps = visit.page.locator("#cases .case").first.locator("image.map")
    panes = [pixels_of(maps.nth(at).get_attribute("href"))[..., :3] for at in (0, 1, 2)]
    counted_HW = made.truth[place] != 255
    for pane_HW3, labels_HW in zip(panes, (made.truth[place], *(made.maps[side][place] for side in sides))):
        assert np.array_equal(pane_HW3[counted_HW], palette()[labels_HW][counted_HW])


def pixels_of(uri: str | None) -> np.ndarray:
    """Return the RGBA pixels of a picture that lies in the page."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(str(uri).partition(",")[2]))).convert("RGBA"))


def test_orders_and_classes_choose_images(made: Made, open_page: Any) -> None:
    visit = open_page(made.path)
    facts = {one.file_name: one for one in made.browser.gallery.images}
    visit.choose(sort="second")
    differences = [facts[name].difference for name in visit.listed()]
    assert differences == sorted(differences, reverse=True)
    visit.choose(sort="errors", cls="3")
    listed = visit.listed()
    pairs = zip(made.truth, made.maps["first"], made.maps["second <i>"])
    there = [n for n, (truth, a, b) in enumerate(pairs) if (3 in truth) or 3 in a[truth != 255] or 3 in b[truth != 255]]
    assert sorted(int(name[:3]) for name in listed) == there
    visit.choose(sort="first")
    card = visit.page.locator("#cases .case").first
    place = int(visit.files()[0][:3])
    counted_HW = made.truth[place] != 255
    truth, found = (one[place][counted_HW] == 3 for one in (made.truth, made.maps["first"]))
    iou = 100 * (truth & found).sum() / (truth | found).sum()
    assert f"IoU of star {iou:.1f}, " in card.locator("figcaption").nth(2).text_content()


def test_pointing_names_the_classes_of_truth_and_sides(made: Made, open_page: Any) -> None:
    visit = open_page(made.path)
    visit.page.locator("#cases image.differs").first.wait_for()
    pane = visit.page.locator("#cases svg").nth(1)
    box = pane.bounding_box()
    place = int(visit.files()[0][:3])
    y, x = 20, 36
    visit.page.mouse.move(box["x"] + (x + 0.5) / 64 * box["width"], box["y"] + (y + 0.5) / 48 * box["height"])
    visit.page.locator("#tip").wait_for()
    truth = made.truth[place][y, x]
    expected = ["truth: " + ("ignored" if truth == 255 else CLASSES[truth])]
    expected += [f"{name}: {CLASSES[made.maps[name][place][y, x]]}" for name in ("first", "second <i>")]
    assert visit.page.locator("#tip div").all_inner_texts() == expected


def test_the_keyboard_reaches_the_classes_of_every_pixel(made: Made, open_page: Any) -> None:
    page = (visit := open_page(made.path)).page
    page.locator("#cases image.differs").first.wait_for()
    page.locator(".enlarge").first.focus()
    page.keyboard.press("Enter")
    for _ in range(3):  # smaller, larger, close
        page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    place, pane = int(visit.files()[0][:3]), page.locator("dialog svg[tabindex]")

    def lines_at(x: float, y: float) -> list[str]:
        truth = made.truth[place][int(y), int(x)]
        lines = ["truth: " + ("ignored" if truth == 255 else CLASSES[truth])]
        return lines + [
            f"{name}: {CLASSES[made.maps[name][place][int(y), int(x)]]}" for name in ("first", "second <i>")
        ]

    def expect(x: float, y: float) -> None:
        lines = lines_at(x, y)
        page.locator("dialog .stage + [aria-live]").get_by_text("; ".join(lines), exact=True).wait_for(state="attached")
        assert page.locator("#tip div").all_inner_texts() == lines
        assert pane.evaluate("svg => [svg.cursor.x, svg.cursor.y]") == pytest.approx([x, y])

    assert pane.get_attribute("role") == "application"
    expect(32, 24)
    assert page.locator("dialog .cross:not(.casing)").count() == 5
    x, y = 32.0, 24.0
    for key, (dx, dy) in {
        "ArrowRight": (1.6, 0),
        "ArrowUp": (0, -1.6),
        "ArrowLeft": (-1.6, 0),
        "ArrowDown": (0, 1.6),
    }.items():
        for _ in range(7):
            page.keyboard.press(key)
            x, y = x + dx, y + dy
        expect(x, y)
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    expect(63.5, y)  # the last pixel of its row
    assert visit.page.locator("dialog h3").inner_text().endswith("1 of 25")  # the image has stayed
    page.keyboard.press("Shift+Tab")
    assert not page.locator("#tip").is_visible() and not page.locator("dialog .cross").count()
    page.keyboard.press("ArrowRight")
    assert page.locator("dialog h3").inner_text().endswith("2 of 25") and not visit.complaints


def test_without_javascript_the_first_images_are_pictures(made: Made, open_page: Any) -> None:
    visit = open_page(made.path, java_script_enabled=False)
    assert visit.page.locator("noscript article.case").count() == 12
    alts = re.findall(r'alt="([^"]*)"', made.page())
    assert len(alts) == 12 * 5 and all(alts)


def test_one_side_alone_has_its_errors(tmp_path: Path, open_page: Any) -> None:
    made = make_page(tmp_path, 4, ("first",))
    visit = open_page(made.path)
    visit.page.locator("#cases image.differs").first.wait_for()
    assert visit.page.locator("#cases .case").first.locator("figcaption b").all_inner_texts() == [
        "picture", "truth", "first", "errors"
    ]  # fmt: skip
    assert not visit.complaints
