"""A classifier's results for people and for other programs: a table, predictions by image, ILSVRC's submission file.

Legend: N images, C classes, K = min(5, C).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vertebra.evaluation.predict.classes import NO_LABEL, ClassPredictions
from vertebra.ground.errors import UserError
from vertebra.ground.table import Row, Table

PREDICTION_FILES = (".jsonl", ".csv")
_COLUMNS = ("view", "shorter side", "crop", "mirrored", "top-1 error %", "top-5 error %", "images/s")


def results_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a table with one line a result: errors with their intervals. results: facts and figures as in JSON."""
    rows = [Row(name, cells) for name, *cells in map(_cells, results)]
    return Table("", _COLUMNS, rows, corner="weights", left=frozenset(_COLUMNS)).text()


def _cells(result: Mapping[str, Any]) -> tuple[str, ...]:
    several = isinstance(result["weights"], list)
    crops = result["view"] in ("1crop", "10crop")
    return (
        f"ensemble of {len(result['weights'])}" if several else str(result["weights"]),
        str(result["view"]),
        "" if several else " ".join(map(str, result["sides"])),
        "" if several else str(result["size"]) if crops else "whole",
        "" if several else "yes" if result["flip"] else "no",
        *(_error(result, place) for place in (1, 5)),
        f"{result['images_per_s']:.1f}",
    )


def _error(result: Mapping[str, Any], place: int) -> str:
    if f"error{place}" not in result:
        return "no labels"
    low, high = result[f"error{place}_interval"]
    return f"{result[f'error{place}']:.2f} [{low:.2f}, {high:.2f}]"


def predictions_text(
    predictions: ClassPredictions, file_names: Sequence[str], class_names: Sequence[str], suffix: str
) -> str:
    """Return one line an image: name, true class, rank of the true class (1: best), K best classes and probabilities.

    suffix: ".jsonl" (one object a line: image, truth, rank, top5, probabilities) or ".csv" (with a header; class1..,
    probability1..). Without labels truth and rank are null, in CSV empty.
    """
    rows = []
    for place, image in enumerate(predictions.image_ids_N.tolist()):
        label, rank = int(predictions.labels_N[place]), int(predictions.rank_N[place])
        rows.append(
            {
                "image": file_names[image],
                "truth": None if label == NO_LABEL else class_names[label],
                "rank": None if label == NO_LABEL else rank + 1,
                "top5": [class_names[best] for best in predictions.best_NK[place]],
                "probabilities": [float(f"{value:.6g}") for value in predictions.probabilities_NK[place]],
            }
        )
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if suffix != ".csv":
        raise UserError(f"predictions are written as {' or '.join(PREDICTION_FILES)}, not as {suffix!r}")
    best = predictions.best_NK.shape[1]
    header = [f"{name}{place}" for name in ("class", "probability") for place in range(1, best + 1)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "truth", "rank", *header])
    writer.writerows([row["image"], row["truth"], row["rank"], *row["top5"], *row["probabilities"]] for row in rows)
    return text.getvalue()


def ilsvrc_text(predictions: ClassPredictions, ids_C: Sequence[int], file_names: Sequence[str]) -> str:
    """Return ILSVRC's classification submission: one line an image, the ids of its five best classes, best first.

    Images stand in the order of their names (without folders), as in the lists of the challenge.
    """
    names = [file_names[image].rpartition("/")[2] for image in predictions.image_ids_N.tolist()]
    order = sorted(range(len(names)), key=names.__getitem__)
    return "".join(" ".join(str(ids_C[best]) for best in predictions.best_NK[place]) + "\n" for place in order)


def read_synsets(path: Path | None, class_names: Sequence[str]) -> list[int]:
    """Return the ILSVRC id of each class, from a text file of the development kit's synsets; None: 1 and so on.

    Lines `n02119789 1`, or `n02119789` alone, whose number of the line is its id; classes that the network does not
    know are passed over. (The kit itself has them in meta.mat as WNID and ILSVRC2012_ID; that order is not the
    alphabet's.) Raises UserError, OSError.
    """
    if path is None:
        return list(range(1, len(class_names) + 1))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file; write the kit's synsets as lines `n02119789 1`") from None
    ids: dict[str, int] = {}
    kinds = set()
    for number, line in enumerate(lines, start=1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        kinds.add(len(words))
        whole = len(words) == 1 or (len(words) == 2 and words[1].isdecimal())
        if not whole or len(kinds) > 1:
            raise UserError(
                f"{path}, line {number}: {line.strip()!r} is neither a class and its ILSVRC id (`n02119789 1`) nor, "
                "on every line, a class alone"
            )
        if words[0] in ids:
            raise UserError(f"{path}, line {number}: the class {words[0]} has an id already")
        ids[words[0]] = int(words[1]) if len(words) == 2 else number
    missing = [name for name in class_names if name not in ids]
    if missing:
        raise UserError(
            f"{path} has no id for {len(missing)} of the network's {len(class_names)} classes (first: {missing[0]})"
        )
    wanted = [ids[name] for name in class_names]
    if len(set(wanted)) < len(wanted):
        raise UserError(f"{path} gives two classes the same id")
    return wanted
