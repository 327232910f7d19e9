"""What a large COCO file costs a process: parsed, parsed and kept, and mapped.

python benchmarks/annotations.py --objects 860000

Writes a file as large as COCO's train2017 (118,287 images, 860,000 objects with polygons) into a temporary folder.
Each way is a process of its own: seconds of `open_detection`, and the most memory that it had beyond its imports.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import RESULTS, ROOT, write_result

IMAGES_AN_OBJECT = 118_287 / 860_000
CLASSES = 80
WAYS = ("parsed", "parsed and kept", "mapped")


def write_annotations(folder: Path, objects: int) -> Path:
    """Write the file, and the picture by which its images are found."""
    rng, images = random.Random(0), max(1, round(objects * IMAGES_AN_OBJECT))
    (folder / "0.jpg").touch()
    path = folder / "annotations.json"
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"images": [')
        sizes = ', "width": 640, "height": 480, "license": 3, "date_captured": "2013-11-14 17:02:52"}'
        file.write(",".join(f'{{"id": {image}, "file_name": "{image}.jpg"{sizes}' for image in range(images)))
        file.write('], "annotations": [')
        polygons = [", ".join(f"{rng.uniform(9, 470):.2f}" for _ in range(52)) for _ in range(999)]
        for k in range(objects):
            box = f'"image_id": {k % images}, "bbox": [{k % 500}.25, {k % 340}.5, 120.37, 130.91]'
            more = f'"area": {k % 9000 + 100.25}, "iscrowd": 0, "category_id": {1 + k % CLASSES}, "id": {k + 1}'
            file.write("," * (k > 0) + f'{{"segmentation": [[{polygons[k % 999]}]], {box}, {more}}}')
        names = ", ".join(f'{{"id": {c}, "name": "class {c}", "supercategory": "all"}}' for c in range(1, CLASSES + 1))
        file.write(f'], "categories": [{names}]}}')
    return path


def measure(path: Path, *, segmentations: bool) -> dict[str, float]:
    """Open the file in this process."""
    from vertebra.data.datasets.catalog import open_detection

    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    started = time.perf_counter()
    dataset = open_detection(path.parent, f"json:{path}", segmentations=segmentations)
    seconds = time.perf_counter() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - before_mb
    return {"seconds": round(seconds, 2), "peak_mb": round(peak_mb), "objects": len(dataset.labels_K)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=860_000)
    parser.add_argument("--masks", action="store_true", help="keep the polygons")
    parser.add_argument("--output", type=Path, help="result file (default: in benchmarks/results)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, segmentations=args.masks)))
        return
    with tempfile.TemporaryDirectory() as name:
        path = write_annotations(Path(name), args.objects)
        results = {"file_mb": round(path.stat().st_size / 2**20)}
        print(f"{args.objects} objects, {results['file_mb']} MB")
        for way in WAYS:
            command = [sys.executable, __file__, "--measure", str(path), *["--masks"] * args.masks]
            kept = "" if way == "parsed" else str(path.parent / "kept")
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "VERTEBRA_CACHE": kept}
            found = json.loads(subprocess.check_output(command, env=environment))
            results[way] = found
            print(f"{way:16s} {found['seconds']:7.2f} s  {found['peak_mb']:6d} MB", flush=True)
    name = "annotations_masks.json" if args.masks else "annotations.json"
    write_result(args.output or RESULTS / name, {"setting": {"objects": args.objects, "masks": args.masks}, **results})


if __name__ == "__main__":
    main()
