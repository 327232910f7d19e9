"""The embedded sample set: a small world of ten classes, drawn from a seed in seconds, in real data sets' forms."""

from __future__ import annotations

from vertebra.data.sample.shapes import CLASS_NAMES
from vertebra.data.sample.spec import SampleSpec, generator_hash
from vertebra.data.sample.statistics import scene_statistics
from vertebra.data.sample.write import SampleSummary, write_sample_set

__all__ = ["CLASS_NAMES", "SampleSpec", "SampleSummary", "generator_hash", "scene_statistics", "write_sample_set"]
