"""Walk over all image classifiers of timm and torchvision, without weights: `python docs/walk_backbones.py`.

Each is built on the meta device, and so is a detector on each body, through which the shapes of one image pass. Writes
benchmarks/results/backbones.csv, a row a network, and docs/backbones.md from it; `--page` writes the page alone.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import re
import signal
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).parent.parent
TABLE, PAGE = HOUSE / "benchmarks/results/backbones.csv", HOUSE / "docs/backbones.md"
BODIES = ("c4", "dc5", "fpn")
COLUMNS = ("name", "network", "parameters", "flops", "px", *BODIES, "seconds")
LIMIT_S = 300  # of one network
IMAGE_HW = (256, 320)  # any size that no network was drawn for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="write the page from the table that is there")
    parser.add_argument("--names", nargs="*", help="only these, printed and not written")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    if args.names:
        for name in args.names:
            print(examined(name))
        return
    if not args.page:
        walk(args.processes)
    PAGE.write_text(page(read_table()), encoding="utf-8")


def all_names() -> list[str]:
    import timm
    from torchvision import models

    names = [f"torchvision:{name}" for name in models.list_models(module=models)]
    return names + [f"timm:{name}" for name in timm.list_models()]


def walk(processes: int) -> None:
    """Complete the table, in the order of the libraries' lists; what it has already is kept."""
    known = {row["name"] for row in read_table()} if TABLE.exists() else set()
    names = [name for name in all_names() if name not in known]
    with TABLE.open("a", encoding="utf-8", newline="") as file, multiprocessing.Pool(processes) as pool:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not known:
            writer.writeheader()
        for count, row in enumerate(pool.imap(examined, names, chunksize=1), start=1):
            writer.writerow(row)
            file.flush()
            print(f"\r{count} of {len(names)}  {row['name']:60}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def read_table() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def examined(name: str) -> dict[str, Any]:
    """One row: "yes" or the reason against it for each body; parameters, and multiply-adds of one image."""
    import torch

    from backbones import create_backbone
    from backbones.cost import count_parameters, image_flops
    from backbones.norms import evaluating

    warnings.filterwarnings("ignore")
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"name": name}
    start = time.monotonic()
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LIMIT_S)
    try:
        with torch.device("meta"):
            net = create_backbone(name)
            row["network"] = net.outside_class
            row["parameters"] = count_parameters(net)
            row["px"] = net.native_px
            with evaluating(net):
                row["flops"] = image_flops(net, net.native_px, net.native_px)
            row["c4"] = _accepted(net, "c4")
            row["fpn"] = _accepted(net, "fpn")
            coarsest = list(net.feature_specs.values())[-1]
            row["dc5"] = _accepted(net if coarsest.stride <= 16 else create_backbone(name, dilate_last=True), "dc5")
    except Exception as error:  # the page says what happened
        reason = one_line(error, name) or type(error).__name__
        row |= {body: row[body] or reason for body in BODIES}
    finally:
        signal.alarm(0)
    row["seconds"] = f"{time.monotonic() - start:.1f}"
    return row


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"took more than {LIMIT_S} s")


def _accepted(net: Any, body: str) -> str:
    """Build a detector on that body. Of each class of networks the first sends an image through the body as well.

    That is the shape of an image, and for a cut also those of two regions through the head.
    """
    import torch

    from vertebra.build.detector import make_detector
    from vertebra.recipes.schema_detection import DetectionRecipe, Detector

    try:
        detector = make_detector(DetectionRecipe(model=Detector(body=body), weights="none"), net, classes=20).eval()
        if (net.outside_class, body) not in _SEEN:
            with torch.no_grad():
                pixels = torch.zeros(1, 3, *IMAGE_HW, dtype=torch.uint8, device="meta")
                maps = detector.body(pixels, torch.tensor([IMAGE_HW], device="meta"))
                if body == "c4":
                    side = detector.box_head.head.roi_size
                    detector.box_head.head(torch.zeros(2, maps[0].shape[1], side, side, device="meta"))
            _SEEN.add((net.outside_class, body))
    except (ValueError, RuntimeError, AssertionError, TypeError) as error:
        return one_line(error, net.name)
    return "yes"


_SEEN: set[tuple[str, str]] = set()  # of this process


def one_line(error: Exception, name: str) -> str:
    """What an error says of a network, without its name and without advice."""
    return re.split("[.;] ", " ".join(str(error).split()).removeprefix(name).strip())[0].rstrip(".")


def page(rows: Sequence[dict[str, str]]) -> str:
    """The page in Markdown: counts, what is refused and why, and a line a family."""
    summary, families, refused = [], defaultdict(list), defaultdict(list)
    for library in ("timm", "torchvision"):
        own = [row for row in rows if row["name"].startswith(library)]
        counts = [sum(row[body] == "yes" for row in own) for body in BODIES]
        summary.append(f"| {library} | {len(own):,} | {' | '.join(f'{n:,} ({n / len(own):.1%})' for n in counts)} |")
    for row in rows:
        families[row["network"] or "not built", row["name"].partition(":")[0]].append(row)
        if row["fpn"] != "yes":
            refused[row["fpn"]].append(f"`{row['name']}`")
    versions = " and ".join(f"{library} {version(library)}" for library in ("timm", "torchvision"))
    return "\n".join(
        [
            *("# Backbones of timm and torchvision", "", TEXT.format(versions=versions)),
            *("| library | names | c4 | dc5 | fpn |", "|---|---:|---:|---:|---:|", *summary, ""),
            *("## Without a pyramid", "", *(f"- {', '.join(names)}: {why}" for why, names in refused.items()), ""),
            *("## Families", "", FAMILIES_TEXT),
            "| network | names | c4 | dc5 | fpn | parameters, M | multiply-adds, G | smallest |",
            "|---|---:|---:|---:|---:|---:|---:|---|",
            *(family_line(key[0], families[key]) for key in sorted(families, key=lambda key: key[0].lower())),
            "",
        ]
    )


def family_line(network: str, rows: Sequence[dict[str, str]]) -> str:
    counts = [sum(row[body] == "yes" for row in rows) for body in BODIES]
    told = ["all" if count == len(rows) else str(count or "-") for count in counts]
    built = [row for row in rows if row["flops"]]
    costs = [span([float(row[key]) / unit for row in built]) for key, unit in (("parameters", 1e6), ("flops", 1e9))]
    smallest = min(rows, key=lambda row: float(row["parameters"] or "inf"))["name"]
    return f"| {network} | {len(rows)} | {' | '.join(told)} | {' | '.join(costs)} | `{smallest}` |"


def span(values: Sequence[float]) -> str:
    ends = [f"{end:.3g}" if end < 1000 else f"{end:,.0f}" for end in (min(values), max(values))] if values else ["-"]
    return " to ".join(dict.fromkeys(ends))


TEXT = """`python docs/walk_backbones.py` has written this page: every name of {versions},
built without weights, and a detector on each body around it. A row a network is in
[benchmarks/results/backbones.csv](../benchmarks/results/backbones.csv).

Any of them is `--backbone timm:NAME` or `--backbone torchvision:NAME`; files keep the library's names.

- **c4**: the network is cut at stride 16, and what lies above runs once a region. That needs a chain of stages; the
  families that are known as chains are a table, [backbones/families.py](../backbones/families.py).
- **dc5**: the last map at stride 16, by dilation, or as it is where its stride is not above 16.
- **fpn**: maps at strides 4 to 32. A level that a network lacks is made from the next coarser map by deconvolutions, or
  from the coarsest by pooling; a plain ViT has all four made from its single map (Li et al. 2022, §3).

Images have any size. Position embeddings are interpolated and windows padded as timm does it. Patches of 14 px (7) see
the image at 7/8 of its size, so that one is 16 px (8) of it. A network that takes images of one size alone (MLP-Mixer,
CoAtNet, LeViT, BEiT, ...) sees an image in tiles of that size, each by itself.
"""
FAMILIES_TEXT = """By the class of the network: its names and how many of them each body accepts, parameters in
millions, multiply-adds of one image of the network's own size in billions (of convolutions and linear layers, as He et
al. 2015 count), each from the least to the most, and the smallest name.
"""


if __name__ == "__main__":
    main()
