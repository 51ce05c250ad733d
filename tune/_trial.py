"""One trial, on a machine of the cluster: coarse-SN trained by the trainers' own code, and every epoch reported.

A trial's run folder is its memory. Whatever ended it (a kill, a lost machine, a pause), the next try finds there how
far it came, reports those epochs again and trains on from the engine's last checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from mbdcnn import runs
from mbdcnn.data.fingerprint import keep
from mbdcnn.layout import FINGERPRINT, TENSORBOARD
from train.checkpoints import checkpoints, read_state
from train.plan import Plan, plan_run
from train.processes import Process, run_in_group, run_processes
from train.progress import Progress
from train.stages import train_stages
from tune._data import load_data
from tune._space import Point
from tune._work import STAGE, Work

EVENTS = "trial.jsonl"
SCORE = "best_JA"  # of the epochs so far, as that epoch's weights are what a training publishes
EPOCH = "epoch"

_MADE_ANEW = (runs.CONFIG, runs.METRICS, runs.WEIGHTS, TENSORBOARD)  # by the trial that takes over a checkpoint


def trainable(work: Work) -> Callable[[dict[str, Any]], None]:
    """What Ray Tune calls with a trial's configuration, `{"point", "seed"}`."""

    def train_point(config: dict[str, Any]) -> None:
        point, seed = work.space.tidy(config["point"]), config["seed"]
        if work.share.processes > 1:
            _train_together(work, point, seed)
        elif work.evolving:
            _train_evolving(work, point, seed)
        else:
            run = work.run_folder(point, seed)
            _train(work, point, seed, run, _tell)

    return train_point


def epochs_in(run: Path) -> list[dict[str, float]]:
    """The epochs that a run folder holds for good: those before its last checkpoint."""
    stage = run / STAGE
    if not (stage / runs.LOG).is_file():
        return []
    kept = float("inf")
    if not runs.is_finished(run, STAGE):
        whole = checkpoints(stage / runs.CHECKPOINTS)
        kept = read_state(whole[-1]).progress.epoch if whole else 0
    rows = [json.loads(line) for line in (stage / runs.LOG).read_text().splitlines() if line.endswith("}")]
    return [row for row in rows if "step" not in row and row["epoch"] <= kept]


def note(run: Path, event: str, epoch: int) -> None:
    """Add a line to a trial's own log."""
    row = {
        "time": round(time.time(), 1),
        "event": event,
        "epoch": epoch,
        "host": os.uname().nodename,
        "pid": os.getpid(),
    }
    with (run / EVENTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _tell(measures: Mapping[str, float], checkpoint: object = None) -> None:
    from ray import tune

    tune.report(dict(measures), checkpoint=checkpoint)


def _tell_from_group(measures: Mapping[str, float]) -> None:
    from ray import train

    train.report(dict(measures))


def _train(work: Work, point: Point, seed: int, run: Path, tell: Callable[[Mapping[str, float]], None]) -> None:
    """Train in this very process."""
    plan = _prepare(work, point, seed, run, world=1)
    _share_cores(work)
    _repeat(run, tell)
    if not runs.is_finished(run, STAGE):
        run_processes(train_stages, 1, plan, (STAGE,), _reporter(tell))
        note(run, "is finished", len(epochs_in(run)))


def _train_evolving(work: Work, point: Point, seed: int) -> None:
    """Train in a run folder of this trial's own, from the checkpoint that Ray gives: its own or a better trial's."""
    from ray import tune

    given = tune.get_checkpoint()
    context = tune.get_context()
    key = sha256(json.dumps([given and given.path, sorted(point.items())]).encode()).hexdigest()[:8]
    run = work.out / "population" / f"{context.get_trial_id()}-{key}"
    if given is not None and not (run / STAGE).is_dir():
        with given.as_directory() as folder:
            shutil.copytree(folder, run / STAGE, ignore=shutil.ignore_patterns(*_MADE_ANEW))
    for left in run.parent.glob(f"{context.get_trial_id()}-*"):
        if left != run:
            shutil.rmtree(left)

    def tell(measures: Mapping[str, float]) -> None:
        _tell(measures, tune.Checkpoint.from_directory(run / STAGE))

    plan = _prepare(work, point, seed, run, world=1)
    _share_cores(work)
    run_processes(train_stages, 1, plan, (STAGE,), _reporter(tell))


def _train_together(work: Work, point: Point, seed: int) -> None:
    """Train in several processes, which Ray Train starts and gives a group; this one only passes on what they say."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    run, share = work.run_folder(point, seed), work.share
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"work": work, "point": dict(point), "seed": seed, "run": run},
        scaling_config=ScalingConfig(
            num_workers=share.processes,
            use_gpu=share.gpus > 0,
            resources_per_worker={"CPU": share.cpus, **({"GPU": share.gpus} if share.gpus else {})},
        ),
        run_config=RunConfig(
            name=f"{run.name}-{os.getpid()}",
            storage_path=str(work.out / "ray" / "groups"),
            callbacks=[TuneReportCallback()],
        ),
    )
    trainer.fit()


def _worker(config: dict[str, Any]) -> None:
    """One of the processes that train together."""
    work, run = config["work"], config["run"]
    _share_cores(work)
    run_in_group(_train_in_group, work, config["point"], config["seed"], run)


def _train_in_group(process: Process, work: Work, point: Point, seed: int, run: Path) -> None:
    if process.is_first:
        plan = _prepare(work, point, seed, run, process.world)
    process.barrier()
    if not process.is_first:
        plan = _plan(work, point, seed, run, process.world)
    _repeat(run, _tell_from_group)
    if not runs.is_finished(run, STAGE):
        train_stages(process, plan, (STAGE,), _reporter(_tell_from_group))
        if process.is_first:
            note(run, "is finished", len(epochs_in(run)))


def _prepare(work: Work, point: Point, seed: int, run: Path, world: int) -> Plan:
    """The plan of a trial; its run folder then says what is trained, and when each try began."""
    run.mkdir(parents=True, exist_ok=True)
    plan = _plan(work, point, seed, run, world)
    keep(plan.manifest, run / FINGERPRINT, [work.out / FINGERPRINT])
    done = epochs_in(run)
    event = "was finished" if runs.is_finished(run, STAGE) else "goes on" if done else "begins"
    note(run, event, len(done))
    return plan


def _plan(work: Work, point: Point, seed: int, run: Path, world: int) -> Plan:
    manifest, copies, made = load_data(work.data)
    if made:
        note(run, "reduced the images", 0)
    plan = plan_run(run, (STAGE,), work.trained_with(point, seed), manifest, world)
    return replace(plan, copies=copies)


def _repeat(run: Path, tell: Callable[[Mapping[str, float]], None]) -> None:
    """Report the epochs that an earlier try has trained; a scheduler passes over what it has seen."""
    best = 0.0
    for row in epochs_in(run):
        best = max(best, row["JA"])
        tell({EPOCH: row["epoch"], "JA": row["JA"], SCORE: best, "seconds": row["seconds"]})


def _reporter(tell: Callable[[Mapping[str, float]], None]) -> Callable[[Progress, dict[str, float]], None]:
    def report(progress: Progress, measures: dict[str, float]) -> None:
        seconds = round(progress.seconds, 1)
        tell({EPOCH: progress.epoch, "JA": measures["JA"], SCORE: progress.best["JA"], "seconds": seconds})

    return report


def _share_cores(work: Work) -> None:
    """Let the trainers see how many of this machine's cores are a trial's: as many as Ray counts for it."""
    cores = len(os.sched_getaffinity(0))
    os.environ["LOCAL_WORLD_SIZE"] = str(max(1, int(cores // max(1.0, work.share.cpus))))
