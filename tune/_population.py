"""Population-based training that leaves trials alone once they have trained their last epoch."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler


class Population(PopulationBasedTraining):
    """Ray's scheduler, but for the last epoch.

    After it Ray would still hand a weak trial the weights and changed settings of a better one: nothing is trained
    with them any more, and the trial would end with settings that its score does not come from.

    Args:
        epochs: of a whole training.
        options: of Ray's scheduler.
    """

    def __init__(self, epochs: int, **options: Any) -> None:
        super().__init__(**options)
        self._epochs = epochs

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Judge a trial after an epoch, as Ray asks."""
        if result.get(self._time_attr, 0) >= self._epochs:
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)
