"""Takes the README's pictures of a comparison's report.

python docs/take_pictures.py runs/demo/report/report.html

Into docs/: report.png (the first screen), images.png (the browser of images), viewer.png (one image enlarged, pointed
at), phone.png (a phone's view, dark). For a report on the sample set alone: others' photos do not belong into the
repository. Needs a Chromium (apt install chromium) and playwright (pip install -e '.[browser]').
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LAPTOP = {"viewport": {"width": 1280, "height": 860}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}


def opened(chromium: Any, page: Path, address: str = "", **context: Any) -> Any:
    """The page, still and with its first photos drawn."""
    tab = chromium.new_context(reduced_motion="reduce", **context).new_page()
    tab.goto(page.resolve().as_uri() + address)
    if address:
        tab.locator("#cases image").first.wait_for()
        tab.wait_for_timeout(500)  # photos are decoded after they are there
    return tab


def take(chromium: Any, page: Path, output: Path) -> list[Path]:
    """The four pictures' paths."""
    made = [output / f"{name}.png" for name in ("report", "images", "viewer", "phone")]
    opened(chromium, page, **LAPTOP).screenshot(path=made[0])
    tab = opened(chromium, page, "#images&kind=error&on=differ", **LAPTOP)
    tab.screenshot(path=made[1])
    tab.locator(".enlarge").first.click()
    box = tab.locator(".stage .box.right .edge").first.bounding_box()
    tab.mouse.move(box["x"] + 2, box["y"] + 2)
    tab.locator("dialog").screenshot(path=made[2])
    phone = opened(chromium, page, "#images&kind=error&on=differ", color_scheme="dark", **PHONE)
    phone.screenshot(path=made[3])
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="report.html of a comparison on the sample set")
    parser.add_argument("--output", type=Path, default=HERE, help="directory for the pictures (default: docs)")
    args = parser.parse_args()
    if not args.page.is_file():
        sys.exit(f"{args.page} is not there; make demo writes one into runs/demo")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("playwright is not installed: pip install -e '.[browser]'")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        sys.exit("there is no Chromium: apt install chromium")
    args.output.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path)
        for picture in take(chromium, args.page, args.output):
            print(f"written: {picture}")
        chromium.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
