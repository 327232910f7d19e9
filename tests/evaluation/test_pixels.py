"""Figures of segmentation against loops, scikit-learn and torchmetrics where they are installed."""

import numpy as np
import pytest

from segmenters import segmenter
from vertebra.evaluation.metrics.pixels import PixelCounts, confusion, counts_3C
from vertebra.evaluation.statistics.resampling import draw_counts
from vertebra.ground.labels import IGNORED


def maps(images=4, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = [rng.integers(0, classes, (rng.integers(5, 20), 17)).astype(np.uint8) for _ in range(images)]
    found = [
        np.where(rng.random(one.shape) < 0.6, one, rng.integers(0, classes, one.shape)).astype(np.uint8)
        for one in labels
    ]
    for one in labels:
        one[rng.random(one.shape) < 0.2] = IGNORED
    return labels, found


def counts(labels, found, classes=5):
    return PixelCounts.of([counts_3C(confusion(a, b, classes)) for a, b in zip(labels, found)])


def test_what_is_not_learnt_is_not_scored():
    assert segmenter.IGNORED == IGNORED


def test_the_confusion_matrix_is_that_of_a_loop_over_pixels():
    labels, found = maps()
    for a, b in zip(labels, found):
        wanted = np.zeros((5, 5), int)
        for true, given in zip(a.ravel().tolist(), b.ravel().tolist()):
            if true != IGNORED:
                wanted[true, given] += 1
        assert (confusion(a, b, 5) == wanted).all()


def test_figures_are_those_of_their_definitions():
    labels, found = maps()
    true, given = (np.concatenate([one.ravel() for one in side]) for side in (labels, found))
    true, given = true[true != IGNORED], given[true != IGNORED]
    iou = [((true == c) & (given == c)).sum() / ((true == c) | (given == c)).sum() for c in range(5)]
    figures = counts(labels, found).figures()
    assert figures["mIoU"] == pytest.approx(100 * np.mean(iou))
    assert figures["pixel_accuracy"] == pytest.approx(100 * (true == given).mean())
    assert figures["mean_accuracy"] == pytest.approx(100 * np.mean([(given[true == c] == c).mean() for c in range(5)]))
    assert figures["fwIoU"] == pytest.approx(100 * sum((true == c).mean() * iou[c] for c in range(5)))


def test_a_class_that_is_nowhere_has_no_iou_and_one_that_is_only_given_has_zero():
    labels, found = np.array([[0, 0, 1]], np.uint8), np.array([[0, 2, 1]], np.uint8)
    iou_C = counts([labels], [found], classes=4).iou_SC()[0]
    assert iou_C[:3].tolist() == [50, 100, 0] and np.isnan(iou_C[3])
    assert counts([labels], [found], classes=4).figures()["mIoU"] == 50


def test_a_resample_is_the_set_with_images_repeated():
    labels, found = maps()
    counts_SI = draw_counts(4, 20, seed=3)
    iou_SC = counts(labels, found).iou_SC(counts_SI)
    for row, times in zip(iou_SC[1:], counts_SI.astype(int)):
        repeated = [np.repeat(np.arange(4), times).tolist()][0]
        wanted = counts([labels[i] for i in repeated], [found[i] for i in repeated]).iou_SC()[0]
        np.testing.assert_allclose(row, wanted)


def test_scikit_learn_and_torchmetrics_agree():
    labels, found = maps()
    true, given = (np.concatenate([one.ravel() for one in side]) for side in (labels, found))
    kept = true != IGNORED
    sklearn = pytest.importorskip("sklearn.metrics")
    matrix = sum(confusion(a, b, 5) for a, b in zip(labels, found))
    assert (sklearn.confusion_matrix(true[kept], given[kept]) == matrix).all()
    assert counts(labels, found).figures()["mIoU"] == pytest.approx(
        100 * sklearn.jaccard_score(true[kept], given[kept], average="macro")
    )
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    theirs = torchmetrics.multiclass_jaccard_index(
        torch.tensor(given.astype(int)), torch.tensor(true.astype(int)), 5, ignore_index=IGNORED
    )
    assert counts(labels, found).figures()["mIoU"] == pytest.approx(100 * float(theirs), abs=1e-3)
