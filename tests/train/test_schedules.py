"""Learning rates: how they rise and fall, and that they depend on the step alone."""

import itertools
import math

import pytest
import torch

from mbdcnn.config import StageConfig
from train.schedules import learning_rates

STEPS = 5


def rates(schedule: str, warmup: int = 0, epochs: int = 4) -> list[float]:
    rate = learning_rates(StageConfig(epochs=epochs, learning_rate=0.1, schedule=schedule), warmup, STEPS)
    return [rate(step) for step in range(epochs * STEPS)]


def test_poly_is_what_pytorchs_scheduler_of_the_same_formula_gives_to_the_bit() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / 20) ** 0.9)
    expected = []
    for _ in range(20):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates("poly") == expected


def test_cosine_is_pytorchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    expected = []
    for _ in range(20):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates("cosine") == pytest.approx(expected)


def test_constant_stays() -> None:
    assert set(rates("constant")) == {0.1}


@pytest.mark.parametrize("schedule", ["constant", "poly", "cosine"])
def test_warm_up_rises_in_equal_parts_to_the_start_and_the_fall_follows(schedule: str) -> None:
    warm = rates(schedule, warmup=4)
    assert warm[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert all(a >= b for a, b in itertools.pairwise(warm[4:]))
    shorter = learning_rates(StageConfig(epochs=4, learning_rate=0.1, schedule=schedule), 0, STEPS - 1)
    assert warm[4:] == pytest.approx([shorter(step) for step in range(16)])


def test_a_warm_up_longer_than_the_training_only_rises() -> None:
    warm = rates("cosine", warmup=100, epochs=1)
    assert warm == pytest.approx([0.001 * (step + 1) for step in range(STEPS)])
    assert all(math.isfinite(rate) for rate in warm)
