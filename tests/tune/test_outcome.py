"""What a search has found: only points whose every run succeeded, and how much of it is noise."""

import math
from collections.abc import Callable

import pytest

from tune._outcome import best_of, finalists, findings, is_optimum, noise, tried
from tune._round import FAILED, STOPPED, Trial

Make = Callable[..., Trial]


def test_a_point_succeeds_only_if_all_its_runs_do(trial: Make) -> None:
    failed = trial(10, 0.1, None, seed=1, state=FAILED, reason="no memory")
    points = tried([trial(10, 0.1, 0.9), failed, trial(30, 0.3, 0.7), trial(30, 0.3, 0.72, seed=1)])
    assert [p.succeeded for p in points] == [False, True]
    assert points[0].scores == [0.9]
    best = best_of(points)
    assert best is points[1]
    assert best.mean == pytest.approx(0.71)
    assert best.std == pytest.approx(0.01 * math.sqrt(2))


def test_points_with_more_seeds_are_believed_before_a_single_lucky_one(trial: Make) -> None:
    points = tried([trial(10, 0.1, 0.9), trial(30, 0.3, 0.7), trial(30, 0.3, 0.72, seed=1)])
    best = best_of(points)
    assert best is not None
    assert best.point["loss.top_k"] == 30


def test_finalists_are_the_best_points_that_were_trained_to_their_end(trial: Make) -> None:
    trials = [trial(10, 0.1, 0.8), trial(30, 0.3, 0.7), trial(50, 0.2, 0.95, state=STOPPED), trial(10, 0.1, 0.75)]
    assert [p["loss.top_k"] for p in finalists(trials, 5)] == [10, 30]
    assert [p["loss.top_k"] for p in finalists(trials, 1)] == [10]


def test_a_run_that_two_rounds_asked_for_counts_once(trial: Make) -> None:
    assert [len(p.trials) for p in tried([trial(10, 0.1, 0.8), trial(10, 0.1, 0.8, round="last")])] == [1]


def test_an_evolving_trial_is_no_point(trial: Make) -> None:
    assert tried([trial(10, 0.1, 0.8, run="")]) == []


def test_the_noise_is_pooled_over_the_points_with_several_seeds(trial: Make) -> None:
    scores = {10: (0.70, 0.72), 30: (0.80, 0.80), 50: (0.5,)}
    points = tried(trial(k, 0.1, ja, seed=s) for k, values in scores.items() for s, ja in enumerate(values))
    assert noise(points) == pytest.approx(math.sqrt((0.0002 + 0) / 2))
    assert noise(points[2:]) is None


def test_findings_put_the_papers_optimum_beside_ours_and_name_the_noise(trial: Make) -> None:
    trials = [trial(k, m, ja + 0.01 * s, seed=s) for k, m, ja in ((30, 0.3, 0.70), (50, 0.2, 0.71)) for s in (0, 1)]
    trials.append(trial(10, 0.1, 0.5, epochs=1, state=STOPPED))
    said = " ".join(findings(tried(trials), trials, epochs=3))
    assert "Best: K = 50, margin = 0.2, lambda = 0.05, JA 71.5 ± 0.7 % over 2 seeds." in said
    assert (
        "The paper's optimum (K = 30, margin = 0.3, lambda = 0.05) has JA 70.5 ± 0.7 % over 2 seeds here, -1.0" in said
    )
    assert "Between seeds JA deviates by 0.7 points: means of 2 seeds that differ by less than 1.4 points" in said
    assert "2 of 3 points lie as close to the best" in said
    assert "5 trials took 13 epochs, 87 % of what all" in said


def test_nothing_found_and_the_papers_own_optimum_found(trial: Make) -> None:
    assert findings([], [], 3) == ["No point has succeeded yet."]
    trials = [trial(30, 0.3, 0.7)]
    assert "That is the paper's optimum." in findings(tried(trials), trials, 3)
    assert is_optimum(trials[0].point | {"coarse.learning_rate": 0.1})
