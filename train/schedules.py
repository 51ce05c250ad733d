"""The learning rate of each step: a function of the step alone, whatever the strategy and wherever a run goes on."""

from __future__ import annotations

import math
from collections.abc import Callable

from mbdcnn.config import StageConfig


def learning_rates(settings: StageConfig, warmup: int, steps: int) -> Callable[[int], float]:
    """Make a stage's schedule.

    Args:
        settings: of the stage: the rate to start from, and how it falls.
        warmup: steps over which the rate first rises in equal parts to that; it falls afterwards.
        steps: of the optimizer in an epoch.

    Returns:
        Takes the number of steps done, gives the rate of the next one. `poly` falls as (1 - t) ** 0.9, `cosine` as
        (1 + cos(pi t)) / 2, where t is the share of all epochs' steps that is done, both to 0.
    """
    falling = max(1, settings.epochs * steps - warmup)

    def rate(step: int) -> float:
        if step < warmup:
            return settings.learning_rate * ((step + 1) / warmup)
        share = min(1.0, (step - warmup) / falling)
        if settings.schedule == "poly":
            return settings.learning_rate * (1 - share) ** 0.9
        if settings.schedule == "cosine":
            return settings.learning_rate * (0.5 * (1 + math.cos(math.pi * share)))
        return settings.learning_rate

    return rate
