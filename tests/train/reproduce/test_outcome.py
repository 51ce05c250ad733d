"""Rows and verdicts of an experiment from its scores."""

from pathlib import Path

import pytest

from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError
from train.reproduce.catalog import EXPERIMENTS, Arm, Claim, find
from train.reproduce.outcome import findings, measured, row

EVALUATION = {
    "coarse": {"JA": 0.7},
    "enhanced": {"JA": 0.8},
    "classification": {"melanoma": {"AUC": 0.9}, "seborrheic_keratosis": None, "mean_AUC": None},
}


def test_measures_are_found_by_their_path() -> None:
    assert measured(EVALUATION, "enhanced.JA") == 0.8
    assert measured(EVALUATION, "classification.melanoma.AUC") == 0.9
    assert measured(EVALUATION, "classification.seborrheic_keratosis.AUC") is None
    assert measured(EVALUATION, "JA") == 0.8
    assert measured({**EVALUATION, "enhanced": None}, "JA") == 0.7


def rows(lower: list[float | None], higher: list[float | None]) -> list[dict]:
    return [
        row(Arm(label, "coarse"), ["JA"], [0, 1], {s: {"JA": v} for s, v in enumerate(values)}, {}, paper)
        for label, values, paper in (("a", lower, {"JA": 0.77}), ("b", higher, {"JA": 0.8}))
    ]


def test_a_row_averages_the_seeds_that_are_done() -> None:
    whole, half = rows([0.70, 0.72], [0.75, None])
    assert whole["mean"]["JA"] == pytest.approx(0.71)
    assert whole["std"]["JA"] == pytest.approx(0.0141, abs=1e-4)
    assert half["mean"]["JA"] == 0.75
    assert half["std"]["JA"] is None
    assert half["values"]["JA"] == [0.75, None]


@pytest.mark.parametrize(
    ("lower", "higher", "verdict"),
    [
        ([0.70, 0.72], [0.73, 0.74], "b > a, JA: holds, +2.5 points (by seed +3.0, +2.0); paper +3.0."),
        (
            [0.70, 0.75],
            [0.73, 0.74],
            "b > a, JA: holds for 1 of 2 seeds, +1.0 points (by seed +3.0, -1.0); paper +3.0.",
        ),
        ([0.70, 0.75], [0.69, 0.74], "b > a, JA: does not hold, -1.0 points (by seed -1.0, -1.0); paper +3.0."),
        ([0.70, None], [0.73, 0.74], "b > a, JA: holds, +3.0 points (one seed); paper +3.0."),
    ],
)
def test_directions_are_judged_seed_by_seed(lower: list, higher: list, verdict: str) -> None:
    assert findings([Claim("b", "a", "JA")], rows(lower, higher)) == [verdict]


def test_nothing_is_said_of_what_has_not_run() -> None:
    assert findings([Claim("b", "a", "JA")], rows([None, None], [0.7, 0.7])) == []


def test_every_claim_is_about_arms_and_measures_of_its_experiment() -> None:
    for experiment in EXPERIMENTS.values():
        labels = {arm.label for arm in experiment.arms(Manifest(Path(), ()))}
        for claim in experiment.claims:
            assert claim.measure in experiment.measures
            assert {claim.higher, claim.lower} <= labels


def test_an_unknown_experiment_is_answered_with_the_near_one() -> None:
    with pytest.raises(UserError, match="did you mean table4"):
        find("tabel4")
