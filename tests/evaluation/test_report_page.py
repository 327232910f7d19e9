"""The report's browser of images in a real, headless Chromium: opened from the disk, sorted, filtered, zoomed."""

from __future__ import annotations

import math
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup

from tests.evaluation.chromium import Visit, chromium_or_skip
from vertebra.evaluation.metrics.files import Entry, Truth, read_truth
from vertebra.evaluation.report.browser.build import Browser, build_browser
from vertebra.evaluation.report.browser.images import mark_detections
from vertebra.evaluation.report.content import ImageFacts
from vertebra.evaluation.report.page import environment, text_of
from vertebra.evaluation.report.render import Written

CLASSES = ("ring", "star", "never <b>seen</b></script>")
IMAGES = 50
SIZE_WH = (160, 120)
PAGE = """{% extends "base.html.j2" %}{% block main %}{{ browser.markup }}{% endblock %}
{% block end %}<script>{{ browser.script }}</script>{% endblock %}"""


def make_case(images: int) -> tuple[Truth, list[tuple[str, list[Entry]]]]:
    """Truth, and three sides that see more and more of it, with every kind of error."""
    random = np.random.default_rng(0)
    truth: Truth = {
        "images": [
            {"id": i, "file_name": f"{i:03d}<b>&.jpg", "width": SIZE_WH[0], "height": SIZE_WH[1]} for i in range(images)
        ],
        "categories": [{"id": 3 + 4 * place, "name": name} for place, name in enumerate(CLASSES)],
        "annotations": [],
    }
    sides: list[tuple[str, list[Entry]]] = [("first", []), ("second <i>", []), ("third", [])]
    for image in range(images - 1):  # the last has nothing
        for _ in range(int(random.integers(1, 5))):
            box = [*random.uniform(0, 80, 2), *random.uniform(15, 70, 2)]
            entry = {"image_id": image, "category_id": int(random.choice([3, 7])), "bbox": box}
            flags = {"iscrowd": int(random.random() < 0.05), "difficult": int(random.random() < 0.05)}
            truth["annotations"].append({**entry, **flags, "id": len(truth["annotations"]) + 1})
            for (_, found), share in zip(sides, (0.5, 0.7, 0.9)):
                for chance, shift, category in ((share, 0.05, 0), (0.2, 0.5, 0), (0.15, 0.05, 4)):
                    if random.random() < chance:
                        near = np.array(box) + random.normal(0, shift, 4) * 30
                        near[2:] = np.maximum(near[2:], 2)
                        other = 3 + (entry["category_id"] - 3 + category) % 8
                        score = round(float(random.uniform(0.1, 1)), 4)
                        found.append({"image_id": image, "category_id": other, "bbox": near.tolist(), "score": score})
    return truth, sides


@dataclass
class Made:
    """A page on the disk with nothing but the browser of images, and what it was made from."""

    path: Path
    browser: Browser
    truth: Truth
    sides: list[tuple[str, list[Entry]]]

    @property
    def images(self) -> list[ImageFacts]:
        return list(self.browser.gallery.images)


def make_page(directory: Path, truth: Truth, sides: list[tuple[str, list[Entry]]], **asked: Any) -> Made:
    truth = read_truth(truth)
    pair = (0, min(1, len(sides) - 1))
    browser = build_browser(truth, sides, image_roots=[directory], pair=pair, note="", **{"max_images": 500, **asked})
    page = environment().from_string(PAGE)
    style = text_of("style.css") + Markup("\n") + browser.style
    path = directory / "page.html"
    path.write_text(page.render(browser=browser, style=style, report={"title": "a page"}), encoding="utf-8")
    return Made(path, browser, truth, sides)


def write_photos(directory: Path, truth: Truth, *, side_px: int = 160) -> None:
    import cv2

    for image in truth["images"]:
        noise = np.random.default_rng(image["id"]).integers(0, 255, (side_px // 8, side_px // 6, 3), dtype=np.uint8)
        pixels = cv2.resize(noise, (image["width"], image["height"]), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(directory / image["file_name"]), pixels)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    directory = tmp_path_factory.mktemp("page")
    truth, sides = make_case(IMAGES)
    write_photos(directory, truth)
    (directory / truth["images"][4]["file_name"]).unlink()
    return make_page(directory, truth, sides)


def files_of(images: list[ImageFacts]) -> list[str]:
    return [image.file_name for image in images]


def test_it_opens_from_the_disk_asking_for_nothing_and_complaining_of_nothing(made: Made, open_page: Any) -> None:
    visit = open_page(made.path)
    visit.page.locator("#cases image").first.wait_for()
    assert visit.count() == f"{IMAGES} images"
    visit.page.locator(".enlarge").first.click()
    visit.page.keyboard.press("Escape")
    outside = [url for url in visit.requests if not url.startswith("data:")]
    assert outside == [made.path.as_uri()]
    assert not visit.complaints
    assert visit.page.locator("section :is(b, i)", has_text=re.compile("^(seen|&.jpg)$")).count() == 0
    assert visit.page.locator(".pager nav > span").all_inner_texts() == ["page 1 of 3"] * 2
    assert visit.files() == files_of(made.images[:20])


def test_each_order_is_the_one_that_the_figures_have(made: Made, open_page: Any) -> None:
    visit = open_page(made.path)
    by_file = {image.file_name: image for image in made.images}

    def errors(image: ImageFacts) -> int:
        return sum(image.counts[name][what] for name in made.browser.gallery.pair for what in ("false", "missed"))

    keys = {
        "first": lambda image: image.difference,
        "second": lambda image: -image.difference,
        "errors": lambda image: -errors(image),
        "name": lambda image: image.id,
        "most": lambda image: -abs(image.difference),
    }
    for order, key in keys.items():
        visit.choose(sort=order)
        listed = visit.listed()
        assert len(set(listed)) == IMAGES
        values = [key(by_file[name]) for name in listed]
        assert values == sorted(values)
    assert visit.files() == files_of(made.images)[40:]  # the last page of the order in which the page came


def test_the_filter_of_classes_keeps_images_with_an_object_or_a_shown_box_of_it(made: Made, open_page: Any) -> None:
    visit = open_page(made.path)
    thresholds = made.browser.gallery.thresholds
    for place, name in enumerate(CLASSES):
        category = 3 + 4 * place
        ids = {entry["image_id"] for entry in made.truth["annotations"] if entry["category_id"] == category}
        for side, found in made.sides[:2]:
            ids |= {
                entry["image_id"]
                for entry in found
                if entry["category_id"] == category and entry["score"] >= thresholds[side]
            }
        visit.page.locator("select[name=cls]").select_option(label=name)
        expected = [image.file_name for image in made.images if image.id in ids]
        assert visit.listed() == expected
        assert visit.count() == (
            f"{len(expected)} of {IMAGES} images" if len(expected) < IMAGES else f"{IMAGES} images"
        )


def test_the_filter_of_kinds_keeps_what_the_figures_say(made: Made, open_page: Any) -> None:
    visit = open_page(made.path)
    a, b = made.browser.gallery.pair

    def number(image: ImageFacts, side: str, kind: str) -> int:
        counts = image.counts[side]
        if kind == "error":
            return int(counts["false"] + counts["missed"])
        named = {"right": counts["found"], "missed": counts["missed"]}
        return int(named[kind] if kind in named else image.errors[side].get(kind, 0))

    seen = set()
    for kind in ("error", "localisation", "classification", "both", "duplicate", "background", "missed", "right"):
        visit.choose(kind=kind)
        numbers = {image.file_name: (number(image, a, kind), number(image, b, kind)) for image in made.images}
        tests = {
            "a": lambda pair: pair[0] > 0,
            "b": lambda pair: pair[1] > 0,
            "differ": lambda pair: pair[0] != pair[1],
            "either": lambda pair: sum(pair) > 0,
        }
        for on, test in tests.items():
            visit.choose(on=on)
            expected = [name for name, pair in numbers.items() if test(pair)]
            assert visit.count().split(" ")[0] == str(len(expected)), (kind, on)
            assert visit.files() == expected[:20], (kind, on)
            seen.add(len(expected))
    assert len(seen) > 8  # the filters do not all keep the same


def test_class_and_kind_are_asked_of_the_same_box(open_page: Any, tmp_path: Path) -> None:
    def box(image: int, category: int, x: int, **more: Any) -> Entry:
        return {"image_id": image, "category_id": category, "bbox": [x, 0, 20, 20], **more}

    truth = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 100} for i in (1, 2, 3)],
        "categories": [{"id": 1, "name": "ring"}, {"id": 2, "name": "star"}],
        "annotations": [box(1, 1, 0), box(1, 2, 40), box(2, 2, 40), box(3, 1, 0)],
    }
    found = [box(1, 1, 0, score=0.9), box(2, 1, 40, score=0.9), box(3, 1, 0, score=0.9)]
    made = make_page(tmp_path, truth, [("one", found), ("two", found)])
    visit = open_page(made.path, "#images&sort=name")
    for cls, kind, expected in (
        ("ring", "missed", []),  # the first image misses a star alone; the ring of it is found
        ("star", "missed", ["1.jpg", "2.jpg"]),
        ("ring", "classification", ["2.jpg"]),  # a star called a ring concerns both
        ("star", "classification", ["2.jpg"]),
        ("ring", "right", ["1.jpg", "3.jpg"]),
    ):
        visit.page.locator("select[name=cls]").select_option(label=cls)
        visit.choose(kind=kind)
        assert visit.files() == expected, (cls, kind)
    visit.page.locator(".no-photo").first.wait_for(state="attached")  # panes are drawn as they come into view
    assert visit.page.locator(".no-photo").count() > 0
    assert "3 of them could not be read from the disk" in visit.page.locator("#images > p").inner_text()


def test_a_link_keeps_the_view(made: Made, open_page: Any) -> None:
    visit = open_page(made.path)
    visit.choose(kind="missed", sort="first", on="b", sideB="2")
    visit.page.locator("input[type=search]").fill("1")
    address = visit.page.evaluate("location.hash")
    again = open_page(made.path, address)
    assert "1" in again.page.locator("input[type=search]").input_value()
    assert (again.count(), again.files()) == (visit.count(), visit.files())
    assert all("1" in name for name in again.files()) and again.files()
    assert "third" in again.page.locator("#cases figcaption").nth(2).inner_text()
    visit.page.locator(".enlarge").first.click()
    linked = open_page(made.path, visit.page.evaluate("location.hash"))
    assert linked.page.locator("dialog h3").inner_text().startswith(visit.files()[0])
    visit.page.keyboard.press("Escape")
    visit.page.locator("#browser-reset").click()
    assert visit.count() == f"{IMAGES} images"
    damaged = open_page(made.path, "#images&sort=upwards&class=none&a=first&b=first&a-from=x&page=99&image=gone")
    assert damaged.count() == f"{IMAGES} images" and not damaged.complaints


def test_the_score_slider_counts_again(made: Made, open_page: Any) -> None:
    visit = open_page(made.path, "#images&sort=name&b=third&b-from=0.8")
    slider = visit.page.locator("input[name=fromA]")
    slider.focus()
    best = float(slider.input_value())
    for _ in range(10):
        visit.page.keyboard.press("ArrowRight")
    from_a = round(best + 0.1, 2)
    assert visit.page.locator("output[name=scoreA]").inner_text() == f"{from_a:.2f}"
    for at, (place, threshold) in enumerate(((0, from_a), (2, 0.8))):
        name, found = made.sides[place]
        side = mark_detections(name, made.truth, found)
        counts, f1 = side.counts_3I(threshold), side.f1_I(threshold)
        captions = visit.page.locator(f"#cases figure:nth-child({2 + at}) span").all_text_contents()
        assert captions == [
            f"F1 {math.floor(f1[i] + 0.5)}: {counts[0, i]} found, {counts[1, i]} false, {counts[2, i]} missed"
            for i in range(20)
        ]
    visit.page.locator("[data-best]").click()
    assert float(slider.input_value()) == pytest.approx(best)


def test_the_score_slider_reaches_scores_in_percent(open_page: Any, tmp_path: Path) -> None:
    truth, sides = make_case(20)
    percent = [{**one, "score": 100 * one["score"]} for one in sides[1][1]]
    made = make_page(tmp_path, truth, [sides[0], ("percent", percent)])
    visit = open_page(made.path, "#images&sort=name&b-from=70")
    slider = visit.page.locator("input[name=fromB]")
    assert float(slider.input_value()) == 70
    assert 70 < float(slider.get_attribute("max") or 0) <= 100 and float(slider.get_attribute("step") or 0) == 0.1
    visit.page.locator("input[name=fromB]").focus()
    visit.page.keyboard.press("ArrowRight")
    assert visit.page.locator("output[name=scoreB]").inner_text() == "70.10"
    counts = mark_detections("percent", made.truth, percent).counts_3I(70.1)
    captions = visit.page.locator("#cases figure:nth-child(3) span").all_text_contents()
    expected = [f"{counts[0, i]} found, {counts[1, i]} false, {counts[2, i]} missed" for i in range(20)]
    assert [caption.split(": ")[1] for caption in captions] == expected
    assert visit.page.locator("input[name=fromA]").get_attribute("max") == "1"


def views(visit: Visit) -> list[str]:
    visit.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return list(
        visit.page.evaluate("[...document.querySelectorAll('.stage svg')].map((s) => s.getAttribute('viewBox'))")
    )


def test_an_image_opens_zooms_in_step_moves_and_turns_to_the_next(made: Made, open_page: Any) -> None:
    visit = open_page(made.path, "#images&sort=second")
    page = visit.page
    files = visit.listed()
    page.locator('[data-page="-1"]').first.click()  # the second of three pages
    page.locator("#cases .panes svg").nth(3 * 19).click()  # the last image of that page
    title = page.locator("dialog h3")
    assert title.inner_text() == f"{files[39]}, 40 of {IMAGES}"
    assert views(visit) == [f"0 0 {SIZE_WH[0]} {SIZE_WH[1]}"] * 3
    page.keyboard.press("+")
    zoomed = views(visit)
    assert len(set(zoomed)) == 1
    assert float(zoomed[0].split()[2]) == pytest.approx(SIZE_WH[0] / 1.5)
    assert page.locator("dialog output").inner_text() == "150 %"
    frame = page.locator(".stage svg").nth(1).bounding_box()
    page.mouse.move(frame["x"] + frame["width"] / 4, frame["y"] + frame["height"] / 4)
    page.mouse.wheel(0, -400)
    wheeled = [float(value) for value in views(visit)[2].split()]
    before = [float(value) for value in zoomed[0].split()]
    assert wheeled[2] < before[2]
    for at, size in ((0, 2), (1, 3)):  # what lies under the pointer stays there
        assert wheeled[at] + wheeled[size] / 4 == pytest.approx(before[at] + before[size] / 4, abs=0.3)
    page.mouse.down()
    page.mouse.move(frame["x"] + 10, frame["y"] + 10, steps=3)
    page.mouse.up()
    moved = [float(value) for value in views(visit)[0].split()]
    scale = wheeled[2] / frame["width"]
    assert moved[0] == pytest.approx(wheeled[0] + (frame["width"] / 4 - 10) * scale, abs=0.3)
    page.keyboard.press("0")
    assert views(visit)[0] == f"0 0 {SIZE_WH[0]} {SIZE_WH[1]}"
    page.keyboard.press("ArrowRight")
    assert title.inner_text() == f"{files[40]}, 41 of {IMAGES}"
    page.locator('[data-step="-1"]').click()
    assert title.inner_text().startswith(files[39])
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    page.locator("#cases h3").filter(has_text=files[40]).wait_for()  # the close event comes after the closing
    assert visit.files() == files[40:]  # the list has turned to the page of the image looked at last
    focused = page.evaluate("document.activeElement.closest('.case').querySelector('h3').textContent")
    assert focused == files[40]
    assert not visit.complaints


def test_pointing_at_a_box_tells_of_it_and_marks_its_object_in_the_other_panes(made: Made, open_page: Any) -> None:
    visit = open_page(made.path)
    page = visit.page
    page.locator(".enlarge").first.click()
    box = page.locator(".stage figure:nth-child(3) .box.right").first
    edge = box.locator(".edge").bounding_box()
    page.mouse.move(edge["x"] + 1, edge["y"] + 1)
    tip = page.locator("#tip")
    assert tip.evaluate("(tip) => tip.closest('dialog') !== null")  # else the dialog lies over it
    lines = tip.locator("div").all_inner_texts()
    name, score = re.fullmatch(r"(.+), score \.(\d{3})", lines[0]).groups()  # type: ignore[union-attr]
    assert name in CLASSES and lines[1].startswith("found: IoU .") and len(lines) == 4
    image = next(one for one in made.images if page.locator("dialog h3").inner_text().startswith(one.file_name))
    scores = [entry["score"] for entry in made.sides[1][1] if entry["image_id"] == image.id]
    assert any(abs(one - int(score) / 1000) < 0.0006 for one in scores)
    truth = box.get_attribute("data-truth")
    marked = page.locator(".stage .same")
    assert {one.get_attribute("data-truth") for one in marked.all()} == {truth}
    assert page.locator(f".stage figure:nth-child(1) .same[data-truth='{truth}']").count() == 1
    page.mouse.move(2, 2)
    assert not tip.is_visible() and marked.count() == 0
    reached = page.locator(".stage .box").first
    reached.focus()  # by keyboard the same
    assert tip.is_visible()
    assert tip.locator("div").first.inner_text() in reached.get_attribute("aria-label")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways_and_pinches(made: Made, open_page: Any, scheme: str) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "color_scheme": scheme}
    visit = open_page(made.path, **phone)
    page = visit.page
    page.locator(".more summary").tap()
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(int(value) for value in re.findall(r"\d+", paper)) < 60) == (scheme == "dark")
    page.locator(".enlarge").first.tap()
    assert page.evaluate("((d) => d.scrollWidth <= d.clientWidth)(document.querySelector('dialog'))")
    frame = page.locator(".stage svg").first.bounding_box()
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
    session = page.context.new_cdp_session(page)
    for kind, reach in (("touchStart", 20), ("touchMove", 40), ("touchMove", 60), ("touchEnd", 0)):
        points = [{"x": x + sign * reach, "y": y, "id": sign + 1} for sign in (-1, 1)] if reach else []
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert views(visit)[0] == views(visit)[2]
    assert float(views(visit)[0].split()[2]) == pytest.approx(SIZE_WH[0] / 3, rel=0.05)
    assert not visit.complaints


def test_without_javascript_the_first_images_are_there(made: Made, open_page: Any) -> None:
    visit = open_page(made.path, java_script_enabled=False)
    assert visit.page.locator(".case h3").all_text_contents() == files_of(made.images[:12])
    assert visit.page.locator(".case .panes svg").count() == 36
    assert visit.page.locator(".case .box.missed").count() > 0
    assert not visit.page.locator("form").is_visible() and not visit.page.locator("#tip").is_visible()


def test_one_side_alone_can_be_looked_through(open_page: Any, tmp_path: Path) -> None:
    truth, sides = make_case(6)
    made = make_page(tmp_path, truth, sides[:1])
    visit = open_page(made.path)
    assert visit.page.locator(".case").first.locator("svg").count() == 2
    visit.choose(kind="missed")
    assert visit.files() == [i.file_name for i in errors_first(made.images) if i.counts["first"]["missed"]]
    visit.page.locator(".enlarge").first.click()
    assert len(views(visit)) == 2 and not visit.complaints


def errors_first(images: list[ImageFacts]) -> list[ImageFacts]:
    return sorted(images, key=lambda image: -image.counts["first"]["false"] - image.counts["first"]["missed"])


def test_fewer_images_are_those_that_differ_most(tmp_path: Path) -> None:
    truth, sides = make_case(20)
    made = make_page(tmp_path, truth, sides, max_images=7)
    assert len(made.images) == 7 and "The 7 shown here differ most" in made.browser.markup
    nothing = make_page(tmp_path, truth, sides, max_images=0)
    assert nothing.images == []


@pytest.mark.slow
def test_five_hundred_images_open_in_seconds(open_page: Any, tmp_path: Path) -> None:
    truth, sides = make_case(500)
    for image in truth["images"]:
        image.update(width=640, height=480)
    write_photos(tmp_path, truth, side_px=1600)
    made = make_page(tmp_path, truth, sides)
    visit = open_page(made.path)
    visit.page.wait_for_function("performance.getEntriesByName('images-drawn').length")
    loaded, drawn = visit.page.evaluate(
        "[performance.getEntriesByType('navigation')[0].loadEventEnd, "
        "performance.getEntriesByName('images-drawn')[0].startTime]"
    )
    print(f"{made.path.stat().st_size / 1e6:.1f} MB, loaded after {loaded:.0f} ms, first photo after {drawn:.0f} ms")
    assert visit.count() == "500 images" and max(loaded, drawn) < 5000


def test_the_whole_report_opens_without_an_error_and_its_tables_sort(report: Written, tmp_path: Path) -> None:
    """Driven by a script at the page's end, so that it needs a Chromium alone; the title tells how it went."""
    chromium = chromium_or_skip()
    clicks = """
      document.querySelector('.enlarge').click();
      const enlarged = document.querySelectorAll('dialog[open] .panes svg').length;
      document.querySelector('[data-step="1"]').click();
      document.querySelector('[data-close]').click();
      document.querySelectorAll('table.sortable thead button')[1].click();
      const rows = [...document.querySelectorAll('table.sortable tbody tr')];
      const objects = rows.map((r) => Number(r.cells[1].textContent));
      const falling = objects.every((n, i) => !i || objects[i - 1] >= n);
      document.title = `enlarged ${enlarged} falling ${falling}`;
    """
    page = tmp_path / "page.html"
    page.write_text(report.page.read_text().replace("</body>", f"<script>{clicks}</script></body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run([chromium, *options, page.as_uri()], capture_output=True, text=True, timeout=120)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console, console
    assert "<title>enlarged 3 falling true</title>" in done.stdout
