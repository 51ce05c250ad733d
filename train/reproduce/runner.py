"""Trains and scores what an experiment compares; everything that is there already is taken from the shelf."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from mbdcnn import runs
from mbdcnn.classes import CLASSES
from mbdcnn.config import STAGES, Config, override
from mbdcnn.data.derive import fold_manifest
from mbdcnn.data.fingerprint import keep, warn_of_leakage
from mbdcnn.data.manifest import Manifest
from mbdcnn.data.prepared import Copies
from mbdcnn.errors import UserError
from mbdcnn.files import locked
from mbdcnn.layout import FINGERPRINT
from mbdcnn.lineage import lineage
from mbdcnn.machine import machine
from train.evaluate import evaluate_run
from train.plan import plan_run
from train.processes import run_processes
from train.reproduce.catalog import Arm, Experiment
from train.reproduce.maps import draw_maps
from train.reproduce.outcome import findings, mean_of_known, measured, row
from train.reproduce.published import competitors, paper_figures, paper_source
from train.reproduce.render import write_report
from train.reproduce.shelf import run_folder
from train.stages import train_stages

PH2_FOLDS = 4


@dataclass(frozen=True)
class Scale:
    """How much of the paper's work is done.

    Attributes:
        budget: share of the preset's epochs, above 0 and at most 1; at least one epoch a stage is trained.
        seeds: how often everything is repeated.
        protocol: of the evaluation.
        processes: that train together.
    """

    budget: float = 1.0
    seeds: int = 1
    protocol: str = "single"
    processes: int = 1


def reproduce(
    experiment: Experiment,
    config: Config,
    manifest: Manifest,
    ph2: Manifest | None,
    out: Path,
    scale: Scale,
    settings: Sequence[str] = (),
    copies: Copies | None = None,
) -> dict[str, Any]:
    """Run an experiment; a second call goes on where the first one stopped.

    Args:
        experiment: from `catalog`.
        config: of the preset, with the caller's overrides.
        manifest: ISIC-2017, or a data set in its layout.
        ph2: PH2, for the experiments that need it.
        out: folder of all experiments; gets NAME.json, NAME.md and NAME.png.
        scale: how much.
        settings: the caller's overrides, for the report.
        copies: of `manifest`, to train on; None for the originals, on which all is scored.

    Returns:
        The document in NAME.json.

    Raises:
        UserError: PH2 is needed and not given, the data's classes are not the paper's, the budget is out of range, or
            what training and evaluation raise.
    """
    _check(experiment, scale, manifest, ph2)
    arms = experiment.arms(manifest)
    scored = manifest if ph2 is None else ph2
    split = experiment.split if scored.select(experiment.split) else "validation"
    config = _shortened(config, scale.budget)
    document = _header(experiment, config, manifest, scale, settings)
    document |= {"split": split, "notes": _notes(experiment, arms, split, copies)}
    figures: dict[str, dict[int, dict[str, float | None]]] = {arm.label: {} for arm in arms}
    folders: dict[str, dict[int, list[Path]]] = {arm.label: {} for arm in arms}
    with locked(out):
        for data in (manifest, ph2):
            if data is not None:
                warn_of_leakage(data, _fingerprint_file(out, data))
        for seed in document["seeds"]:
            for number, arm in enumerate(arms, 1):
                print(f"{experiment.name}, seed {seed}, {number} of {len(arms)}: {arm.label}", file=sys.stderr)
                own = override(config, [f"seed={seed}", *arm.settings])
                work = _Work(out, own, arm.stage, manifest, scale, copies)
                evaluations = work.folds(ph2) if experiment.ph2 == "folds" and ph2 else [work.score(scored, split)]
                figures[arm.label][seed] = _averaged(evaluations, experiment.measures)
                folders[arm.label][seed] = work.trained
                rows = [_row(a, document, figures[a.label], folders[a.label], out) for a in arms]
                document |= {"rows": rows, "findings": findings(experiment.claims, rows)}
                document |= {"n_images": sum(e["n_images"] for e in evaluations)}
                runs.write_json(out / f"{experiment.name}.json", document)
                write_report(document, out)
        if experiment.kind == "maps":
            columns = [(arm.label, folders[arm.label][config.seed][0]) for arm in arms]
            draw_maps(out / f"{experiment.name}.png", scored, split, columns)
    return document


def _check(experiment: Experiment, scale: Scale, manifest: Manifest, ph2: Manifest | None) -> None:
    if not 0 < scale.budget <= 1:
        raise UserError(f"--budget is {scale.budget:g}; give a share of the preset's epochs, above 0 and at most 1.")
    if scale.seeds < 1:
        raise UserError(f"--seeds is {scale.seeds}; give at least 1.")
    if experiment.ph2 and ph2 is None:
        raise UserError(f"{experiment.name} needs PH2; name its folder with --ph2.")
    if ph2 is not None and not experiment.ph2:
        raise UserError(f"{experiment.name} has no use for PH2; leave out --ph2.")
    if manifest.classes != CLASSES:
        raise _other_classes(manifest)
    if ph2 is not None and not set(ph2.classes) <= set(CLASSES):
        raise _other_classes(ph2)


def _other_classes(data: Manifest) -> UserError:
    return UserError(
        f"{data.root} has the classes {', '.join(data.classes)}, but the paper's figures are for {', '.join(CLASSES)}; "
        "give a data set of these, or use `mbdcnn train`."
    )


def _fingerprint_file(out: Path, manifest: Manifest) -> Path:
    """Where the runs of a data set find its fingerprint."""
    return out / "data" / manifest.fingerprint[:16] / FINGERPRINT


def _header(
    experiment: Experiment, config: Config, manifest: Manifest, scale: Scale, settings: Sequence[str]
) -> dict[str, Any]:
    """What the document says before anything has run."""
    return {
        "name": experiment.name,
        "title": experiment.title,
        "kind": experiment.kind,
        "command": _command(experiment, config, scale, settings),
        "preset": config.preset,
        "budget": scale.budget,
        "settings": list(settings),
        "seeds": list(range(config.seed, config.seed + scale.seeds)),
        "protocol": scale.protocol,
        "data": {"name": manifest.root.resolve().name, "fingerprint": manifest.fingerprint},
        "machine": machine(),
        "date": date.today().isoformat(),
        "code_version": runs.code_version(),
        "measures": list(experiment.measures),
        "optimum": experiment.optimum,
        "x_label": experiment.x_label,
        "paper_source": paper_source(experiment.name),
        "published": competitors(experiment.name),
    }


def _row(
    arm: Arm,
    document: Mapping[str, Any],
    figures: Mapping[int, Mapping[str, float | None]],
    folders: Mapping[int, Sequence[Path]],
    out: Path,
) -> dict[str, Any]:
    paper = paper_figures(document["name"], arm.label)
    names = {seed: [str(run.relative_to(out)) for run in trained] for seed, trained in folders.items()}
    return row(arm, document["measures"], document["seeds"], figures, names, paper)


def _averaged(evaluations: Sequence[Mapping[str, Any]], measures: Sequence[str]) -> dict[str, float | None]:
    """Each measure, averaged over evaluations (the folds)."""
    return {m: mean_of_known([measured(e, m) for e in evaluations]) for m in measures}


def _command(experiment: Experiment, config: Config, scale: Scale, settings: Sequence[str]) -> str:
    """What to type to get the same again."""
    parts = [f"mbdcnn reproduce {experiment.name} --data DIR --preset {config.preset} --budget {scale.budget:g}"]
    parts += ["--ph2 DIR"] if experiment.ph2 else []
    parts += [f"--seeds {scale.seeds}", f"--protocol {scale.protocol}", *settings]
    return " ".join(parts)


class _Work:
    """One configuration, trained where it is not yet, and its scores."""

    def __init__(
        self, out: Path, config: Config, stage: str, manifest: Manifest, scale: Scale, copies: Copies | None
    ) -> None:
        self.out = out
        self.scale = scale
        self.config = config
        self.stage = stage
        self.manifest = manifest
        self.copies = copies
        self.trained: list[Path] = []

    def score(self, manifest: Manifest, split: str) -> dict[str, Any]:
        """Train on the data set, score on a split of this or another one."""
        return self._evaluate(self._train(self.config, self.manifest), manifest, split)

    def folds(self, ph2: Manifest) -> list[dict[str, Any]]:
        """Fine-tune on all folds of PH2 but one, score on that one; ISIC-2017's validation split chooses the epoch."""
        begin = self._train(self.config, self.manifest)
        own = override(self.config, [f"bootstrap.start_run={begin}"])
        scores = []
        for fold in range(PH2_FOLDS):
            manifest = fold_manifest(ph2, self.manifest, fold, PH2_FOLDS, self.config.seed)
            scores.append(self._evaluate(self._train(own, manifest), manifest, "test"))
        return scores

    def _train(self, config: Config, manifest: Manifest) -> Path:
        run = run_folder(self.out, config, self.stage, manifest.fingerprint, self.copies.key if self.copies else "")
        keep(manifest, run / FINGERPRINT, [_fingerprint_file(self.out, manifest)], sys.stderr.isatty())
        stages = lineage(config, self.stage)
        if not all(runs.is_finished(run, stage) for stage in stages):
            plan = plan_run(run, stages, config, manifest, self.scale.processes)
            run_processes(train_stages, self.scale.processes, replace(plan, copies=self.copies), stages)
        self.trained.append(run)
        return run

    def _evaluate(self, run: Path, manifest: Manifest, split: str) -> dict[str, Any]:
        name = f"{manifest.root.resolve().name}-{manifest.fingerprint[:8]}-{split}-{self.scale.protocol}"
        folder = run / "evaluation" / name
        if (folder / runs.METRICS).is_file():
            return json.loads((folder / runs.METRICS).read_text())
        loaded = runs.load_finished(run)
        return evaluate_run(run, loaded, manifest, split, folder, self.scale.protocol, sys.stderr.isatty())


def _shortened(config: Config, budget: float) -> Config:
    """The same with a share of each stage's epochs."""
    epochs = [f"{s}.epochs={max(1, round(budget * config.stage(s).epochs))}" for s in STAGES]
    return override(config, epochs)


def _notes(experiment: Experiment, arms: Sequence[Arm], split: str, copies: Copies | None) -> list[str]:
    """What a reader must know to judge the figures."""
    shared = set.intersection(*(set(arm.settings) for arm in arms)) if len(arms) > 1 else set()
    notes = [*experiment.notes, *(f"All rows were trained with {setting}." for setting in sorted(shared))]
    if copies is not None:
        reduced = f"copies reduced to a short side of {copies.short_side} pixels"
        notes.append(f"Trained on {reduced}, scored on the originals.")
    if split != experiment.split:
        notes.append(f"The data set has no {experiment.split} split: the scores are the {split} split's.")
    if split == "validation":
        notes.append("The epoch of each network was chosen on the same split, as in the paper.")
    if experiment.ph2 == "folds":
        notes.append(f"Each figure is the mean of {PH2_FOLDS} folds; ISIC-2017's validation split chose the epochs.")
    return notes
