"""A round of a search: some points and seeds, tried by Ray Tune, which keeps its state among the results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbdcnn import runs
from mbdcnn.errors import UserError, explain
from tune._algorithm import Algorithm
from tune._space import Point, Value
from tune._trial import EPOCH, SCORE, epochs_in, trainable
from tune._work import STAGE, Work

FINISHED, STOPPED, FAILED, UNFINISHED = "finished", "stopped early", "failed", "unfinished"
_CHECKPOINTS_KEPT = 3  # of an evolving trial: others may be copying the one before the last


@dataclass(frozen=True)
class Trial:
    """What came of one training.

    Attributes:
        round: that asked for it first.
        point: what was tried.
        seed: of the training.
        state: `FINISHED`, `STOPPED` (by the algorithm, before its last epoch), `FAILED` or `UNFINISHED`.
        JA: the best epoch's, on the validation split at the network's input size; None before the first epoch.
        best_epoch: counted from 1.
        epochs: trained.
        seconds: of training.
        reason: why it failed.
        run: its run folder in the results folder; empty for an evolving trial, whose settings changed as it trained.
    """

    round: str
    point: dict[str, Value]
    seed: int
    state: str
    JA: float | None
    best_epoch: int | None
    epochs: int
    seconds: float
    reason: str
    run: str


@dataclass(frozen=True)
class Round:
    """Points and seeds to try.

    Attributes:
        name: in the results.
        title: for people.
        points: to try, None to leave it to the algorithm.
        seeds: to try each point with.
    """

    name: str
    title: str
    points: tuple[Point, ...] | None
    seeds: tuple[int, ...]


def run_round(wanted: Round, work: Work, algorithm: Algorithm, at_once: int, retries: int) -> list[Trial]:
    """Try what a round asks for; where an earlier call has begun, go on with it.

    Args:
        wanted: the round.
        work: what all trials share.
        algorithm: that chooses the points where the round does not.
        at_once: trials at most.
        retries: of a trial that fails.

    Returns:
        All trials, also those of earlier calls; unfinished ones only where the round was interrupted.
    """
    from ray import tune

    from tune._progress import Progress

    folder = work.out / "ray" / _key(wanted)
    function = tune.with_resources(trainable(work), _resources(work))
    if tune.Tuner.can_restore(str(folder)) and list(folder.glob("experiment_state-*.json")):
        tuner = tune.Tuner.restore(str(folder), function, resume_unfinished=True, resume_errored=True)
    else:  # also where an earlier call was killed before Ray had kept anything
        tuner = tune.Tuner(
            function,
            param_space=_param_space(wanted, work, algorithm),
            tune_config=_tune_config(wanted, work, algorithm, at_once),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=str(folder.parent),
                failure_config=tune.FailureConfig(max_failures=retries),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=_CHECKPOINTS_KEPT),
                callbacks=[Progress(wanted.title)],
                verbose=0,
            ),
        )
    tuner.fit()
    return _trials(wanted, work, folder)


def _key(wanted: Round) -> str:
    """Names the round's state; other points are another round."""
    content = json.dumps([wanted.points and [sorted(p.items()) for p in wanted.points], wanted.seeds])
    return f"{wanted.name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _resources(work: Work) -> Any:
    from ray import tune

    share = work.share
    if share.processes > 1:  # Ray Train asks for the processes; Tune must ask for something too
        return tune.PlacementGroupFactory([{"memory": 1e6}])
    return tune.PlacementGroupFactory([{"CPU": share.cpus, **({"GPU": share.gpus} if share.gpus else {})}])


def _param_space(wanted: Round, work: Work, algorithm: Algorithm) -> dict[str, Any]:
    from ray import tune

    if wanted.points is None:
        return {"point": algorithm.param_space(work.space), "seed": wanted.seeds[0]}
    points = tune.grid_search([dict(point) for point in wanted.points])
    return {"point": points, "seed": tune.grid_search(list(wanted.seeds))}


def _tune_config(wanted: Round, work: Work, algorithm: Algorithm, at_once: int) -> Any:
    from ray import tune

    chosen = algorithm.tune_config(work.space, at_once) if wanted.points is None else {"max_concurrent_trials": at_once}
    # a process that trains one trial after the other imports the trainers once
    return tune.TuneConfig(trial_dirname_creator=_dirname, reuse_actors=True, **chosen)


def _dirname(trial: Any) -> str:
    return str(trial.trial_id)


def _trials(wanted: Round, work: Work, folder: Path) -> list[Trial]:
    from ray.tune import ExperimentAnalysis

    return [_trial(wanted, work, trial) for trial in ExperimentAnalysis(str(folder)).trials]


def _trial(wanted: Round, work: Work, seen: Any) -> Trial:
    point, seed = work.space.tidy(seen.config["point"]), int(seen.config["seed"])
    last = seen.last_result or {}
    if work.evolving:
        state = {"TERMINATED": FINISHED, "ERROR": FAILED}.get(seen.status, UNFINISHED)
        score, epochs, seconds = last.get(SCORE), last.get(EPOCH, 0), last.get("seconds", 0.0)
        return Trial(wanted.name, point, seed, state, score, None, epochs, seconds, _reason(seen), "")
    run = work.run_folder(point, seed)
    rows = epochs_in(run)
    best = max(rows, key=lambda row: row["JA"], default=None)
    state = _state(run, seen.status)
    return Trial(
        round=wanted.name,
        point=point,
        seed=seed,
        state=state,
        JA=best["JA"] if best else None,
        best_epoch=int(best["epoch"]) if best else None,
        epochs=len(rows),
        seconds=rows[-1]["seconds"] if rows else 0.0,
        reason=_reason(seen) if state == FAILED else "",
        run=str(run.relative_to(work.out)),
    )


def _state(run: Path, status: str) -> str:
    if runs.is_finished(run, STAGE):
        return FINISHED
    return {"TERMINATED": STOPPED, "ERROR": FAILED}.get(status, UNFINISHED)


def _reason(seen: Any) -> str:
    """Why a trial failed, in a line."""
    if seen.status != "ERROR":
        return ""
    error = seen.get_pickled_error() or seen.get_error()
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, UserError | OSError):
        return explain(cause)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__


def finished(trials: Sequence[Trial]) -> list[Trial]:
    """Those that trained to their end, so that they can be compared."""
    return [trial for trial in trials if trial.state == FINISHED and trial.JA is not None]
