"""What `score.py --resamples` and `--against` print: the intervals of a figure and of its difference to another's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from vertebra.ground.parse import as_json

if TYPE_CHECKING:
    from vertebra.cli.score import Settings
    from vertebra.evaluation.metrics.average_precision import CountsArray
    from vertebra.evaluation.statistics.resampling import Resampled

Found = TypeVar("Found")
Resample: TypeAlias = Callable[[Found, "CountsArray"], "Resampled"]  # the figure of what was found, of resampled images


def intervals(
    options: Settings, figure: str, sides: Sequence[Found], resample: Resample[Found], *, images: int
) -> dict[str, Any]:
    """Print and return the interval of the figure, and of its difference to other predictions.

    sides: what was found, and with --against what others found. The resamples and the intervals are those of the
    report, so that the two agree on the same files.
    """
    from vertebra.evaluation.statistics.comparison import Interval, figure_interval
    from vertebra.evaluation.statistics.resampling import compare, draw_counts

    counts_SI = draw_counts(images, options.resamples, seed=0)
    mine, *others = (resample(found, counts_SI) for found in sides)
    interval = figure_interval(mine.mean_S, images=mine.images)
    over = f"over {options.resamples} resamples of the images"
    if math.isnan(interval.low):
        what = "a labelled pixel" if figure == "mIoU" else "an object that counts"
        print(f"no interval of {figure}: it takes two images with {what}")
    else:
        print(f"95 % interval of {figure} {over}: {interval.low:.2f} to {interval.high:.2f}")
    facts = {"resamples": options.resamples, "images": images, "classes": len(mine.classes)}
    result: dict[str, Any] = {"interval": {"figure": figure, **as_json(interval), **facts}}
    for other in others:
        gain = compare([other], [mine])
        change = float(mine.mean_S[0] - other.mean_S[0])
        text = f"{figure} less that of {options.against}: {'-' if math.isnan(change) else f'{change:+.2f}'}"
        if gain is None:
            values = as_json(Interval(change, math.nan, math.nan, interval.level))
        else:
            values = as_json(gain)
            text += f", 95 % interval {over}: {gain.low:+.2f} to {gain.high:+.2f} (image sampling only"
            text += ")" if gain.distinguishable else "; not distinguishable)"
        print(text)
        result["against"] = {"predictions": str(options.against), "figure": figure, **values, **facts}
    return result
