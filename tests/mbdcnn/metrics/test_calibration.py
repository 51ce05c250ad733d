"""Temperatures that are known, errors that can be counted by hand, and doubts that know or guess."""

import numpy as np
import pytest
from scipy.special import softmax

from mbdcnn.metrics import (
    calibration_scores,
    cross_fitted,
    detection,
    fit_temperature,
    reliability,
    risk_coverage,
    selection,
)


def honest(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their own softmax."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(images, 3))
    labels = np.array([rng.choice(3, p=p) for p in softmax(logits, axis=1)])
    return logits, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_spoilt_the_logits_is_found(temperature):
    logits, labels = honest(4000)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.08)


def test_cross_fitting_mends_overconfidence_and_keeps_decisions():
    logits, labels = honest(1000)
    before = softmax(3 * logits, axis=1)
    after, temperatures = cross_fitted(3 * logits, labels)
    assert len(temperatures) == 5
    assert np.array(temperatures) == pytest.approx(3, rel=0.25)
    bad, good = calibration_scores(before, labels), calibration_scores(after, labels)
    assert good.ECE < 0.06 < 0.1 < bad.ECE
    assert good.NLL < bad.NLL
    assert good.Brier < bad.Brier
    assert (after.argmax(1) == before.argmax(1)).all()


def test_an_images_temperature_does_not_come_from_it():
    logits, labels = honest(60)
    moved = logits.copy()
    moved[7] = -9 * np.eye(3)[labels[7]]  # certain, and wrong
    (_, before), (probabilities, after) = cross_fitted(logits, labels), cross_fitted(moved, labels)
    (own,) = [t for t, u in zip(after, before, strict=True) if t == u]
    assert probabilities[7] == pytest.approx(softmax(moved[7] / own))


def test_errors_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    labels = np.array([0, 1, 0, 1])
    (sixty, seventy, ninety) = reliability(probabilities, labels)
    assert (sixty.images, seventy.images, ninety.images) == (1, 1, 2)
    assert (ninety.confidence, ninety.accuracy) == (pytest.approx(0.9), 0.5)
    scores = calibration_scores(probabilities, labels)
    assert pytest.approx((0.4 + 0.3 + 2 * 0.4) / 4) == scores.ECE
    assert pytest.approx(-np.log([0.9, 0.1, 0.6, 0.7]).mean()) == scores.NLL
    assert scores.Brier == pytest.approx(np.mean([0.02, 1.62, 0.32, 0.18]))


def test_a_certain_and_wrong_answer_is_finite():
    assert np.isfinite(calibration_scores(np.array([[1.0, 0.0]]), np.array([1])).NLL)


def test_risk_over_coverage_by_hand():
    risk, doubt = np.array([0.0, 1.0, 0.5, 0.1]), np.array([0.1, 0.9, 0.2, 0.3])
    assert risk_coverage(doubt, risk) == pytest.approx([0, 0.25, 0.2, 0.4])
    assert risk_coverage(np.zeros(4), risk) == pytest.approx([0.4] * 4)  # equal doubts choose nothing


def test_gain_runs_from_guessing_to_knowing():
    risk = np.random.default_rng(3).random(500)
    assert selection(risk, risk).gain == pytest.approx(1)
    assert selection(np.zeros(500), risk).gain == pytest.approx(0)
    assert selection(-risk, risk).gain < -0.5
    assert abs(selection(np.random.default_rng(4).random(500), risk).gain) < 0.2
    assert selection(risk, np.ones(500)).gain == 0


def test_detection_counts_what_passes():
    familiar = np.arange(100.0)
    found = detection(familiar, np.array([10.0, 200.0, 300.0, 400.0]))
    assert found.passed == 0.25
    assert pytest.approx((0.105 + 3) / 4) == found.AUROC
    assert found.images == 4
