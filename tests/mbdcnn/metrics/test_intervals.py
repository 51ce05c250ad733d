"""Bootstrap intervals against SciPy's, and what small or lopsided samples do."""

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score

from mbdcnn.classes import CLASSES
from mbdcnn.metrics import RESAMPLES, classification_intervals, classification_scores, drawings, mean_interval


def answers(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, images)
    logits = rng.normal(size=(images, 3)) + 1.2 * np.eye(3)[labels]
    p = np.exp(logits)
    return (p / p.sum(1, keepdims=True)).round(2), labels  # ties, too


def test_a_means_interval_is_scipys():
    values = np.random.default_rng(1).beta(5, 2, 120)
    expected = bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=1).confidence_interval
    assert mean_interval(values, drawings(120)) == pytest.approx(expected, abs=0.005)


def test_each_drawing_has_the_auc_of_the_images_that_it_holds():
    probabilities, labels = answers(40)
    drawn = drawings(40)[:50]
    by_hand = []
    for times in drawn.astype(int):
        held = np.repeat(np.arange(40), times)
        by_hand.append([roc_auc_score(labels[held] == i, probabilities[held, i]) for i in (1, 2)])
    found = classification_intervals(probabilities, labels, drawn)
    for i, name in enumerate(CLASSES[1:]):
        assert found[name]["AUC"] == pytest.approx(np.quantile(np.array(by_hand)[:, i], [0.025, 0.975]))
    assert found["mean_AUC"] == pytest.approx(np.quantile(np.mean(by_hand, axis=1), [0.025, 0.975]))


def test_intervals_hold_their_scores_and_shrink_with_more_images():
    widths = []
    for images in (60, 960):
        probabilities, labels = answers(images)
        scores, found = classification_scores(probabilities, labels), None
        found = classification_intervals(probabilities, labels, drawings(images))
        for name in CLASSES[1:]:
            for measure, (low, high) in found[name].items():
                assert low < scores[name][measure] < high
        widths.append(found["mean_AUC"][1] - found["mean_AUC"][0])
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.35)


def test_the_same_images_have_the_same_interval():
    assert (drawings(30) == drawings(30)).all()
    assert (drawings(30).sum(1) == 30).all()


def test_a_class_of_one_image_has_an_interval_from_the_drawings_that_hold_it():
    probabilities, labels = answers(12)
    labels[:] = 0
    labels[0] = 1
    found = classification_intervals(probabilities, labels, drawings(12))
    assert all(np.isfinite(found["melanoma"]["AUC"]))
    assert found["seborrheic_keratosis"] is None
    assert found["mean_AUC"] is None
