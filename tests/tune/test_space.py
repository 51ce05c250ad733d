"""What is searched: exactly the paper's values, or drawn ones that a run can take."""

from dataclasses import replace

import pytest

from mbdcnn.config import differences, override
from mbdcnn.errors import UserError
from mbdcnn.presets import preset
from tune._algorithm import ALGORITHMS, algorithm_of
from tune._space import (
    AUGMENTATION,
    ENCODER,
    LAMBDA,
    MARGIN_FIELD,
    OPTIMUM,
    RATE,
    SPACES,
    K,
    Range,
    configured,
    in_words,
    space_of,
)

COMPACT = preset("compact")


def test_the_papers_space_is_that_of_its_figures() -> None:
    grid = SPACES["paper"].grid()
    assert grid is not None
    assert {(p[K], p[MARGIN_FIELD]) for p in grid} == {
        (k, m) for k in (10, 30, 50, 100, 150) for m in (0.1, 0.2, 0.3, 0.4)
    }
    assert {p[LAMBDA] for p in grid} == {0.05}
    assert len(grid) == 20
    assert OPTIMUM in grid
    after = SPACES["paper"].after
    assert after is not None
    assert (after.field, after.values) == (LAMBDA, (0.01, 0.05, 0.1, 0.5))


def test_a_sample_of_a_grid_holds_each_point_once_and_its_seed_decides() -> None:
    drawn = SPACES["paper"].draw(12, seed=1)
    assert len({tuple(p.items()) for p in drawn}) == 12
    assert drawn == SPACES["paper"].draw(12, seed=1)
    assert drawn != SPACES["paper"].draw(12, seed=2)
    assert len(SPACES["paper"].draw(100, seed=1)) == 20


def test_the_wide_space_reaches_far_and_evenly_in_the_logarithm() -> None:
    points = SPACES["wide"].draw(400, seed=0)
    ks = sorted(int(p[K]) for p in points)
    assert all(isinstance(p[K], int) for p in points)
    assert ks[0] < 10
    assert ks[-1] > 1500
    assert 60 < ks[200] < 170  # sqrt(5 * 2000) = 100
    assert all(0.05 <= float(p[MARGIN_FIELD]) <= 0.6 for p in points)
    assert all(0.005 <= float(p[LAMBDA]) <= 1 for p in points)
    assert sum(float(p[LAMBDA]) < 0.07 for p in points) == pytest.approx(200, abs=40)


def test_what_a_sampler_proposes_is_brought_into_the_range_with_few_digits() -> None:
    assert Range(K, 5, 2000, whole=True).tidy(2411.3) == 2000
    assert Range(MARGIN_FIELD, 0.05, 0.6).tidy(0.123456789) == 0.1235


def test_a_point_becomes_settings() -> None:
    config = configured(COMPACT, {K: 50, MARGIN_FIELD: 0.2, LAMBDA: 0.1}, seed=7)
    assert (config.loss.top_k, config.loss.margin, config.loss.lambda_rank, config.seed) == (50, 0.2, 0.1, 7)
    assert set(differences(config, COMPACT)) == {K, MARGIN_FIELD, LAMBDA, "seed"}


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
def test_augmentation_has_a_strength(strength: float) -> None:
    given, got = COMPACT.augmentation, configured(COMPACT, {AUGMENTATION: strength}, 0).augmentation
    assert got.rotation_deg == pytest.approx(strength * given.rotation_deg)
    assert got.saturation == pytest.approx(strength * given.saturation)
    assert got.hue_deg == pytest.approx(strength * given.hue_deg)
    assert got.shift_px == pytest.approx(strength * given.shift_px)
    assert got.crop_min == pytest.approx({0.0: 1.0, 1.0: given.crop_min, 2.0: 0.1}[strength])
    assert got.zoom_min == pytest.approx(1 - strength * (1 - given.zoom_min))
    assert replace(got, rotation_deg=0.0).horizontal_flip == given.horizontal_flip


def test_further_settings_on_request() -> None:
    space = space_of("paper", ["learning_rate", "augmentation"], ["resnet34"], COMPACT)
    grid = space.grid()
    assert grid is not None
    assert len(grid) == 20 * 3 * 3 * 2
    assert {p[RATE] for p in grid} == {1.7e-4, 5e-4, 1.5e-3}
    assert {p[ENCODER] for p in grid} == {"tf_efficientnet_lite0", "resnet34"}
    wide = space_of("wide", ["learning_rate"], [], COMPACT)
    assert all(5e-5 <= float(p[RATE]) <= 5e-3 for p in wide.draw(50, 0))


def test_unknown_names_are_answered_with_the_near_one() -> None:
    with pytest.raises(UserError, match=r"no space papr; did you mean paper\? The spaces are paper, wide"):
        space_of("papr", [], [], COMPACT)
    with pytest.raises(UserError, match="no setting for --also learning-rate; did you mean learning_rate"):
        space_of("paper", ["learning-rate"], [], COMPACT)
    with pytest.raises(UserError, match=r"no algorithm optun; did you mean optuna\?"):
        algorithm_of("optun", None, 5, 4, 0, SPACES["paper"])


def test_algorithms_that_do_not_fit_are_refused() -> None:
    wide, paper = SPACES["wide"], SPACES["paper"]
    with pytest.raises(
        UserError, match=r"wide is no grid \(loss.top_k, loss.margin, loss.lambda_rank take any value\)"
    ):
        algorithm_of("grid", None, 5, 4, 0, wide)
    with pytest.raises(UserError, match="--points is for a part"):
        algorithm_of("grid", 5, 5, 4, 0, paper)
    with pytest.raises(UserError, match=r"coarse\.epochs is 1, and asha judges trials between epochs"):
        algorithm_of("asha", None, 1, 4, 0, paper)
    with pytest.raises(UserError, match="--points is 3; pbt needs a population of at least 4"):
        algorithm_of("pbt", 3, 5, 4, 0, paper)
    with pytest.raises(UserError, match="--reduction is 1; give at least 2"):
        algorithm_of("asha", None, 5, 1, 0, paper)
    for name in ALGORITHMS:
        assert algorithm_of(name, None, 5, 4, 0, paper).name == name


def test_points_in_words() -> None:
    assert in_words(OPTIMUM) == "K = 30, margin = 0.3, lambda = 0.05"
    assert in_words({ENCODER: "resnet34", RATE: 3e-4}) == "encoder = resnet34, learning rate = 0.0003"


def test_a_value_that_no_run_takes_is_refused() -> None:
    with pytest.raises(UserError, match=r"loss\.top_k is at least 1"):
        configured(override(COMPACT, []), {K: 0}, 0)
