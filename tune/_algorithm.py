"""How points are chosen, and which trials are ended before their last epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mbdcnn.errors import UserError, unknown
from tune._space import Axis, Listed, Space, require_grid
from tune._trial import EPOCH, SCORE

ALGORITHMS = ("grid", "random", "asha", "optuna", "pbt")
_POINTS = {"random": 20, "asha": 20, "optuna": 20, "pbt": 8}


@dataclass(frozen=True)
class Algorithm:
    """A way to search.

    Attributes:
        name: one of `ALGORITHMS`.
        points: how many are tried, None for all of a grid; of `pbt` the population.
        epochs: of a whole training.
        reduction: of successive halving: at 1, r, r * r ... epochs one trial of r trains on.
        seed: of everything that is drawn.
    """

    name: str
    points: int | None
    epochs: int
    reduction: int
    seed: int

    @property
    def evolves(self) -> bool:
        """Whether settings change while a trial trains."""
        return self.name == "pbt"

    def param_space(self, space: Space) -> Any:
        """What Ray draws trials' points from."""
        from ray import tune

        if self.name in ("optuna", "pbt"):
            return {axis.field: _domain(axis) for axis in space.axes}
        if self.name == "grid" or (self.points is None and space.grid() is not None):
            return tune.grid_search(require_grid(space, self.name))
        return tune.grid_search(space.draw(self.points or _POINTS[self.name], self.seed))

    def tune_config(self, space: Space, at_once: int) -> dict[str, Any]:
        """The arguments of Ray's TuneConfig that make this algorithm."""
        config: dict[str, Any] = {"metric": SCORE, "mode": "max", "max_concurrent_trials": at_once}
        if self.name in ("optuna", "pbt"):
            config["num_samples"] = self.points or _POINTS[self.name]
        if self.name == "optuna":
            import optuna
            from ray.tune.search.optuna import OptunaSearch

            optuna.logging.set_verbosity(optuna.logging.WARNING)

            config["search_alg"] = OptunaSearch(seed=self.seed)
        if self.name in ("asha", "optuna"):
            config["scheduler"] = self._asha()
        if self.name == "pbt":
            config["scheduler"] = self._pbt(space)
            del config["max_concurrent_trials"]  # the population takes turns
        return config

    def _asha(self) -> Any:
        from ray.tune.schedulers import ASHAScheduler

        # below the last epoch, and ending nothing there: a training that gets so far publishes its weights
        return ASHAScheduler(
            time_attr=EPOCH, max_t=self.epochs - 1, reduction_factor=self.reduction, stop_last_trials=False
        )

    def _pbt(self, space: Space) -> Any:
        from tune._population import Population

        varying = {a.field: list(a.values) if isinstance(a, Listed) else _domain(a) for a in space.axes}
        return Population(
            self.epochs,
            time_attr=EPOCH,
            perturbation_interval=max(1, self.epochs // 4),
            hyperparam_mutations={"point": varying},
        )


def algorithm_of(name: str, points: int | None, epochs: int, reduction: int, seed: int, space: Space) -> Algorithm:
    """An algorithm by name.

    Raises:
        UserError: there is none such, or it does not fit the space, the number of points or of epochs.
    """
    if name not in ALGORITHMS:
        raise unknown("algorithm", name, ALGORITHMS)
    if name == "grid":
        require_grid(space, name)
        if points is not None:
            raise UserError("--points is for a part of the points, and grid tries all; leave it out, or take random.")
    if points is not None and points < 1:
        raise UserError(f"--points is {points}; give at least 1.")
    if name == "pbt" and points is not None and points < 4:
        raise UserError(f"--points is {points}; pbt needs a population of at least 4.")
    if reduction < 2:
        raise UserError(f"--reduction is {reduction}; give at least 2.")
    if name not in ("grid", "random") and epochs < 2:
        raise UserError(f"coarse.epochs is {epochs}, and {name} judges trials between epochs; raise it, or take grid.")
    return Algorithm(name, points, epochs, reduction, seed)


def _domain(axis: Axis) -> Any:
    from ray import tune

    if isinstance(axis, Listed):
        return tune.choice(list(axis.values))
    if axis.whole:
        drawn = tune.lograndint if axis.log else tune.randint
        return drawn(int(axis.low), int(axis.high) + 1)
    return (tune.loguniform if axis.log else tune.uniform)(axis.low, axis.high)
