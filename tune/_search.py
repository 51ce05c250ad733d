"""A whole search: its rounds, one after the other, and what is written after each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from mbdcnn import runs
from mbdcnn.config import Config, flatten
from mbdcnn.data.fingerprint import warn_of_leakage
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import Stopped, UserError
from mbdcnn.files import locked
from mbdcnn.layout import FINGERPRINT
from mbdcnn.machine import machine
from train.plan import plan_run
from tune import _interruption
from tune._algorithm import Algorithm
from tune._cluster import cluster, trials_at_once
from tune._data import SearchData, choose_data
from tune._outcome import best_of, finalists, tried
from tune._results import DOCUMENT, PAGE, require_same_search, write_results
from tune._round import Round, Trial, finished, run_round
from tune._space import AUGMENTATION, ENCODER, Listed, Point, Space, configured
from tune._work import STAGE, Share, Work

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # which Ray sets for a job that was submitted


@dataclass(frozen=True)
class Search:
    """What is searched, and how.

    Attributes:
        space: of the points.
        algorithm: that chooses among them.
        seeds: of the best points, the settings' own first; the others are tried with that one alone.
        finalists: how many of the first round's best points get the further seeds.
        share: of the cluster, for each trial.
        retries: of a trial that fails.
        at_once: trials at most; None for as many as there is room for.
        address: of the cluster, as in `cluster`.
        resume: go on with what the results folder holds.
        settings: the caller's overrides, for the report.
        command: that was given, for the report.
    """

    space: Space
    algorithm: Algorithm
    seeds: int
    finalists: int
    share: Share
    retries: int
    at_once: int | None
    address: str | None
    resume: bool
    settings: tuple[str, ...]
    command: str


def run_search(search: Search, config: Config, manifest: Manifest, prepared: str | None, out: Path) -> dict[str, Any]:
    """Search; with `resume`, go on where an earlier call stopped.

    Args:
        search: what, and how.
        config: settings that every point changes.
        manifest: data set.
        prepared: as in `train.pixels.choose_copies`.
        out: results folder, which all machines of the cluster see at the same place.

    Returns:
        The document in `search.json`.

    Raises:
        UserError: a setting, the data, the cluster or the results folder does not fit, or no trial succeeded.
        Stopped: SIGTERM or Ctrl-C; the results of what is finished are written.
    """
    _check(search)
    if _JOB in os.environ and not out.is_absolute():
        raise UserError(f"--out is {out}, and a Ray job's own folder goes with it; give a path that all machines see.")
    out = out.resolve()
    data = choose_data(manifest, prepared, _extremes(search.space, config))
    work = Work(out, config, data, search.share, search.space)
    head = _head(search, work, manifest)
    require_same_search(out, head["search"], search.resume)
    for extreme in _extremes(search.space, config):
        plan_run(out / "trials" / "none", (STAGE,), extreme, manifest, search.share.processes)
    with locked(out), cluster(search.address):
        most = trials_at_once(search.share)
        warn_of_leakage(manifest, out / FINGERPRINT)
        with _interruption.interruptible():
            at_once = min(most, search.at_once or most)
            return _Rounds(search, work, head, at_once).run()


class _Rounds:
    """The rounds of a search."""

    def __init__(self, search: Search, work: Work, head: dict[str, Any], at_once: int) -> None:
        self.search, self.work, self.head, self.at_once = search, work, head, at_once
        self.seeds: list[int] = head["seeds"]
        self.trials: list[Trial] = []

    def run(self) -> dict[str, Any]:
        """Run all; the document of the last."""
        algorithm, space = self.search.algorithm, self.search.space
        if not (self.work.out / DOCUMENT).is_file():  # lest two searches share a folder before the first trial ends
            self._write(done=False)
        title = f"{space.name} by {algorithm.name}"
        self._try(Round("first", title, None, (self.seeds[0],)), replace(self.work, evolving=algorithm.evolves))
        if not finished(self.trials):
            self._write(done=True)
            first = next((trial.reason for trial in self.trials if trial.reason), "all were ended early")
            raise UserError(f"No trial of {len(self.trials)} succeeded, the first because: {first}; see {self._page}.")
        further = self.seeds if algorithm.evolves else self.seeds[1:]
        best = finalists(self.trials, self.search.finalists)
        if further and best:
            self._try(Round("finalists", "further seeds of the best points", tuple(best), tuple(further)), self.work)
        if space.after is not None:
            self._try_after(space.after)
        return self._write(done=True)

    def _try_after(self, axis: Listed) -> None:
        """Vary one more setting at the best point so far."""
        best = best_of(tried(self.trials))
        if best is None:
            return
        points: list[Point] = [{**best.point, axis.field: value} for value in axis.values]
        done = {(tuple(t.point.items()), t.seed) for t in finished(self.trials)}
        missing = [p for p in points if any((tuple(p.items()), seed) not in done for seed in self.seeds)]
        if missing:
            self._try(Round("last", f"{axis.field} at the best point", tuple(missing), tuple(self.seeds)), self.work)

    def _try(self, wanted: Round, work: Work) -> None:
        """Run a round; what it says of a training that an earlier round has had is the newer word."""
        search = self.search
        self.trials += run_round(wanted, work, search.algorithm, self.at_once, search.retries)
        self._write(done=False)
        if (asked := _interruption.asked()) is not None:
            raise Stopped(f"stopped; results so far in {self._page}, and --resume goes on.", asked)

    @property
    def _page(self) -> Path:
        return self.work.out / PAGE

    def _write(self, done: bool) -> dict[str, Any]:
        return write_results(self.work, self.head, self.trials, done)


def _check(search: Search) -> None:
    if search.seeds < 1:
        raise UserError(f"--seeds is {search.seeds}; give at least 1.")
    if search.finalists < 1:
        raise UserError(f"--finalists is {search.finalists}; give at least 1.")
    if search.share.processes < 1:
        raise UserError(f"--processes is {search.share.processes}; give at least 1.")
    if search.share.cpus <= 0 or search.share.gpus < 0:
        raise UserError("--cpus is above 0 and --gpus at least 0; change them.")
    if search.share.processes > 1 and search.algorithm.evolves:
        raise UserError("pbt trains each trial in one process; leave out --processes, or take another --algorithm.")
    if search.retries < 0:
        raise UserError(f"--retries is {search.retries}; give at least 0.")
    if search.at_once is not None and search.at_once < 1:
        raise UserError(f"--at-once is {search.at_once}; give at least 1.")
    searched = {axis.field for axis in (*search.space.axes, *filter(None, [search.space.after]))}
    for name in (setting.partition("=")[0] for setting in search.settings):
        if name in searched or (name.startswith(f"{AUGMENTATION}.") and AUGMENTATION in searched):
            raise UserError(f"{name} is what the search varies; leave it out of the settings.")


def _extremes(space: Space, config: Config) -> list[Config]:
    """Settings that between them ask for all that a point may ask for: every encoder, and the closest look."""
    encoders = next((axis.values for axis in space.axes if isinstance(axis, Listed) and axis.field == ENCODER), ())
    strongest = {
        axis.field: max(axis.values, key=float) if isinstance(axis, Listed) else axis.high
        for axis in space.axes
        if axis.field == AUGMENTATION
    }
    points: list[Point] = [{**strongest, ENCODER: encoder} for encoder in encoders] or [strongest]
    return [configured(config, point, config.seed) for point in points]


def _head(search: Search, work: Work, manifest: Manifest) -> dict[str, Any]:
    """What the document says before anything has run; `search` is all that a results folder stands for."""
    config, algorithm, space = work.config, search.algorithm, search.space
    seeds = list(range(config.seed, config.seed + search.seeds))
    data = {"name": manifest.root.resolve().name, "fingerprint": manifest.fingerprint}
    return {
        "name": "search",
        "search": {
            "space": space.name,
            "fields": [axis.field for axis in space.axes],
            "algorithm": algorithm.name,
            "points": algorithm.points,
            "reduction": algorithm.reduction,
            "seeds": search.seeds,
            "finalists": search.finalists,
            "share": {"processes": search.share.processes, "cpus": search.share.cpus, "gpus": search.share.gpus},
            "pixels": work.data.pixels or "originals",
            "data": data,
            "config": flatten(config),
        },
        "command": search.command,
        "preset": config.preset,
        "settings": list(search.settings),
        "seeds": seeds,
        "data": data,
        "n_images": len(manifest.select("validation", masks=True)),
        "machine": machine(),
        "date": date.today().isoformat(),
        "code_version": runs.code_version(),
        "notes": _notes(search, work.data),
    }


def _notes(search: Search, data: SearchData) -> Sequence[str]:
    notes = [
        "JA as the trainer measures it: on the validation images at the network's input size, at the best epoch, "
        "which was chosen on the same images.",
    ]
    if search.seeds > 1:
        notes.append(
            "Only the best points have several seeds. Their first scores chose them and are therefore high by chance: "
            "compare means of the same number of seeds."
        )
    if search.algorithm.name in ("asha", "optuna"):
        notes.append("Trials that fell behind were stopped early; they count as tried, not as successes.")
    if search.algorithm.evolves:
        notes.append(
            "The population's settings changed while it trained; its best last settings were trained anew and constant."
        )
    if data.pixels:
        notes.append(f"Trained on prepared copies ({data.pixels}).")
    return notes
