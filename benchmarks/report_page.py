"""How long the report's browser of images takes to open in Chromium, with 500 images and several sides.

python benchmarks/report_page.py                              # pictures made up here
python benchmarks/report_page.py --truth COCO.json --images DIR   # the first images of a data set

Needs a Chromium (apt install chromium) and playwright (pip install -e '.[browser]'). Each round opens the page from the
disk in a fresh context. Timed, from the start of the navigation: the load event; the first photo with its boxes on the
screen; how long a change of the filter keeps the page busy; and the processor's seconds of the page's main thread until
that photo, which is what to read on a busy machine. The predictions are made up in both cases: 100 an image and side.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import RESULTS, summary, write_result  # first: it makes the rooms importable

import numpy as np  # isort: skip

from resampling import detections, truth_like_coco

from vertebra.evaluation.metrics.files import read_truth
from vertebra.evaluation.report.browser.build import build_browser
from vertebra.evaluation.report.page import environment, text_of

PAGE = """{% extends "base.html.j2" %}{% block main %}{{ browser.markup }}{% endblock %}
{% block end %}<script>{{ browser.script }}</script>{% endblock %}"""
READ = """[performance.getEntriesByType('navigation')[0].loadEventEnd,
performance.getEntriesByName('images-drawn')[0].startTime]"""
FILTER = """(() => { const select = document.querySelector('select[name=kind]'); select.value = 'missed';
const start = performance.now(); select.dispatchEvent(new Event('input', { bubbles: true }));
return performance.now() - start; })()"""


def make_pictures(directory: Path, truth: dict[str, Any], random: np.random.Generator) -> None:
    """Noise of several sizes, whose JPEGs are about as large as those of photos."""
    import cv2

    for image in truth["images"]:
        image["file_name"] = f"{image['id']:06d}.jpg"
        pixels = np.zeros((480, 640, 3))
        for cells, weight in ((6, 120), (40, 60), (240, 25)):
            noise = random.random((cells * 3 // 4, cells, 3))
            pixels += weight * cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(directory / image["file_name"]), pixels.clip(0, 255).astype(np.uint8))


def first_images(truth: dict[str, Any], count: int) -> dict[str, Any]:
    images = truth["images"][:count]
    ids = {image["id"] for image in images}
    annotations = [entry for entry in truth["annotations"] if entry["image_id"] in ids]
    return {"images": images, "categories": truth["categories"], "annotations": annotations}


def write_page(directory: Path, truth: dict[str, Any], images: Path, sides: int) -> tuple[Path, float]:
    """The page, and the seconds that it took to make."""
    random = np.random.default_rng(1)
    found = [(f"side {place}", detections(truth, 100, random)) for place in range(sides)]
    truth = read_truth(truth)
    start = time.perf_counter()
    asked = {"max_images": len(truth["images"]), "pair": (0, min(1, sides - 1)), "note": ""}
    browser = build_browser(truth, found, image_roots=[images], **asked)
    template = environment().from_string(PAGE)
    style = text_of("style.css", "browser.css")
    text = template.render(browser=browser, style=style, report={"title": "Benchmark"})
    seconds = time.perf_counter() - start
    path = directory / "page.html"
    path.write_text(text, encoding="utf-8")
    return path, seconds


def open_once(chromium: Any, path: Path) -> dict[str, float]:
    """Seconds until loaded and until the first photo is drawn, of the main thread, and of a change of the filter."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    try:
        context.set_default_timeout(180_000)
        page = context.new_page()
        session = context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(path.as_uri() + "#images&sort=most&on=a")
        page.wait_for_function("performance.getEntriesByName('images-drawn').length")
        loaded, drawn = page.evaluate(READ)
        metrics = {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}
        filtered = page.evaluate(FILTER)
    finally:
        context.close()
    return {
        "loaded": loaded / 1000,
        "first photo": drawn / 1000,
        "main thread, processor": metrics["TaskDuration"],
        "filter": filtered / 1000,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="images in the page (default: 500)")
    parser.add_argument("--sides", type=int, default=3, help="sides with predictions (default: 3)")
    parser.add_argument("--rounds", type=int, default=7, help="openings (default: 7)")
    parser.add_argument("--truth", type=Path, help="COCO JSON; with --images")
    parser.add_argument("--images", type=Path, help="the directory of its images")
    parser.add_argument("--output", type=Path, default=RESULTS / "report_page.json")
    args = parser.parse_args()
    if (args.truth is None) != (args.images is None):
        parser.error("give both --truth and --images, or neither")
    chromium_path = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("playwright is not installed: pip install -e '.[browser]'")
    if chromium_path is None:
        sys.exit("there is no Chromium: apt install chromium")
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        if args.truth:
            truth, images = first_images(json.loads(args.truth.read_text()), args.count), args.images
        else:
            truth, images = truth_like_coco(args.count, np.random.default_rng(0)), directory
            make_pictures(directory, truth, np.random.default_rng(0))
        path, made_s = write_page(directory, truth, images, args.sides)
        size_mb = path.stat().st_size / 1e6
        print(f"{args.count} images, {args.sides} sides: {size_mb:.1f} MB, made in {made_s:.1f} s")
        times: dict[str, list[float]] = {}
        with sync_playwright() as driver:
            chromium = driver.chromium.launch(executable_path=chromium_path)
            version = chromium.version
            for turn in range(-1, args.rounds):
                for name, value in open_once(chromium, path).items():
                    if turn >= 0:
                        times.setdefault(name, []).append(value)
            chromium.close()
    for name, values in times.items():
        told = summary(values)
        print(f"{name:24s} {told['median_s']:.3f} s  ({told['min_s']:.3f} .. {told['max_s']:.3f}), n = {told['n']}")
    setting = {
        "images": args.count, "sides": args.sides, "page_mb": round(size_mb, 2), "made_s": round(made_s, 2),
        "pictures": "made up" if args.truth is None else args.truth.name, "chromium": version,
        "load_average_15_min": os.getloadavg()[2],
    }  # fmt: skip
    write_result(args.output, {"setting": setting, "times": {name: summary(values) for name, values in times.items()}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
