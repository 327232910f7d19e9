"""A few real images learnt by heart: the whole machine, from decoding to AP, has no loose part."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.tools.conftest import run

DATA = Path(os.environ.get("VERTEBRA_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data") / "coco"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="no real data: set VERTEBRA_DATA")
@pytest.mark.parametrize("backbone", ["r18", "vgg11_bn"])
def test_eight_images_are_learnt_by_heart(backbone, tmp_path):
    flags = ("--config", "detection/overfit.yaml", "--backbone", backbone, "--data", DATA, "--output", tmp_path / "run")
    run("train_det", *flags, "--device", "cpu", timeout_s=3000)
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["coco"]["AP50"] > 90, evaluation["coco"]
