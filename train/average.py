"""One network from several trainings: the mean of their weights (model soups, Wortsman et al., ICML 2022).

Trainings that start from the same weights and differ in settings or seed mostly end where the weights between
them are good too; the mean then errs less than each, and costs no more to ask.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mbdcnn import config as configuration
from mbdcnn import runs
from mbdcnn.config import STAGES
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError
from mbdcnn.layout import CHECKPOINTS, CONFIG, FINGERPRINT, METRICS, TENSORBOARD, WEIGHTS
from mbdcnn.lineage import lineage, must_fit
from mbdcnn.networks import place
from train.evaluate import evaluate_run
from train.pixels import RECORD

_SPLIT = "validation"


def average(run: Path, stage: str, sources: Sequence[Path], progress: bool = False) -> dict[str, Any]:
    """Make a stage of a new run of that stage's networks in other runs.

    Args:
        run: folder of the new run; gets the stages that the networks learnt from, so that the next stage can be trained
            in it, and the evaluation of the mean on the validation split.
        stage: to average.
        sources: run folders, two or more, all trained on the same data and, where the stage learns from others,
            from the same ones.
        progress: show a bar on standard error.

    Returns:
        The stage's `metrics.json`; `averaged` names the sources, their scores and the settings in which they differ.

    Raises:
        UserError: a source lacks the stage, they do not fit together, the run has the stage already, or the validation
            images are gone or cannot give the score; or a file is damaged.
    """
    _check(run, stage, sources)
    _copy_parents(run, stage, sources[0])
    folder = run / stage
    folder.mkdir(parents=True, exist_ok=True)
    config = configuration.load(sources[0] / stage / CONFIG)
    network = runs.NETWORKS[stage](config.network)
    network.load_state_dict(_mean([runs.load_stage(source, stage).state_dict() for source in sources]))
    configuration.save(config, folder / CONFIG)
    runs.save_weights(network, folder / WEIGHTS)

    made = [runs.provenance(source)["stages"][stage] for source in sources]
    networks = {name: runs.load_stage(run, name) for name in lineage(config, stage)[:-1]} | {stage: network.eval()}
    chain = runs.MutualBootstrap(*(networks.get(name) for name in STAGES))  # type: ignore[arg-type]
    where = run / "evaluation" / f"{_SPLIT}-{stage}"
    found = evaluate_run(
        run, (place(chain, "cpu"), config), Manifest.load(run / runs.MANIFEST), _SPLIT, where, "single", progress
    )
    document = {
        **{key: made[0][key] for key in ("stage", "score", "pretrained", "data", "short_side", "environment")},
        "best": _score(found, stage, made[0]["score"]),
        "epochs": sum(each["epochs"] for each in made),
        "seconds": round(sum(each["seconds"] for each in made), 1),
        "averaged": [
            {"run": source.resolve().name, "weights": _digest(source, stage), **_told(each, made[0])}
            for source, each in zip(sources, made, strict=True)
        ],
        "code_version": runs.code_version(),
    }
    runs.write_json(folder / METRICS, document)  # last: it says that the stage is finished
    return document


def _check(run: Path, stage: str, sources: Sequence[Path]) -> None:
    if len(sources) < 2:
        raise UserError("A mean needs at least two runs; name more.")
    for source in sources:
        runs.require_stage(source, stage)
    if runs.is_finished(run, stage) or (run / stage / CHECKPOINTS).exists():
        raise UserError(f"{run} has a stage {stage} already; name another --run.")
    first = sources[0]
    config, data = configuration.load(first / stage / CONFIG), Manifest.load(first / runs.MANIFEST).fingerprint
    parents = lineage(config, stage)[:-1]
    for other in sources[1:]:
        changed = configuration.differences(config, configuration.load(other / stage / CONFIG))
        unfit = [name for name in changed if must_fit(name, stage)]
        if unfit:
            raise UserError(f"{first} and {other} have different networks of stage {stage} ({', '.join(unfit)}).")
        if Manifest.load(other / runs.MANIFEST).fingerprint != data:
            raise UserError(f"{first} and {other} were trained on different data; average runs on the same.")
    for parent in parents:
        for other in [*sources[1:], *([run] if (run / parent).exists() else [])]:
            if _digest(other, parent) != _digest(first, parent):
                raise UserError(
                    f"Stage {stage} of {other} learnt from another stage {parent} than that of {first}; copy one run's "
                    f"{parent} folder into a new run and train {stage} there."
                )


def _copy_parents(run: Path, stage: str, source: Path) -> None:
    run.mkdir(parents=True, exist_ok=True)
    config = configuration.load(source / stage / CONFIG)
    for parent in lineage(config, stage)[:-1]:
        if not (run / parent).exists():
            shutil.copytree(source / parent, run / parent, ignore=shutil.ignore_patterns(CHECKPOINTS, TENSORBOARD))
    for name in (runs.MANIFEST, FINGERPRINT, RECORD):
        if (source / name).is_file() and not (run / name).exists():
            shutil.copyfile(source / name, run / name)


def _mean(states: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of each tensor, summed in float64; counters too."""
    return {k: torch.stack([state[k].double() for state in states]).mean(0).to(v.dtype) for k, v in states[0].items()}


def _told(made: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """What is told of one source: its scores, and the settings that are not those of the first."""
    others = {name: value for name, value in made["settings"].items() if value != first["settings"][name]}
    return {"best": made["best"], "best_epoch": made.get("best_epoch"), "other_settings": others}


def _score(found: dict[str, Any], stage: str, score: str) -> dict[str, float]:
    part = found["classification" if stage == "mask" else stage]
    if part is None or part.get(score) is None:
        raise UserError(
            f"The validation images do not give {score} of stage {stage}; add some with truth of each kind."
        )
    return {score: part[score]}


def _digest(run: Path, stage: str) -> str:
    runs.require_stage(run, stage)
    return hashlib.sha256((run / stage / WEIGHTS).read_bytes()).hexdigest()
