"""The verbs that train and score."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from mbdcnn.classes import SPLITS
from mbdcnn.cli._shared import FOLDER, PROTOCOL, answer, json_option, nproc_option, prepared_option, warn_of_leakage
from mbdcnn.errors import UserError


@click.command()
@click.argument("stage", type=click.Choice(["coarse", "mask", "enhanced", "all"]))
@click.argument("settings", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--data", "data_folder", type=FOLDER, required=True, help="Folder in the ISIC-2017 or plain layout.")
@click.option("--run", type=FOLDER, help="Run folder.  [default: runs/<data>-<preset>]")
@click.option("--preset", "preset_name", help="Starting point of the settings.  [default: the run's own, else compact]")
@click.option("--config", "config_file", type=FOLDER, help="The same as a file, such as a run's config.yaml.")
@prepared_option
@nproc_option
@json_option
def train(
    stage: str,
    settings: tuple[str, ...],
    data_folder: Path,
    run: Path | None,
    preset_name: str | None,
    config_file: Path | None,
    prepared: str | None,
    nproc: str,
    as_json: bool,
) -> None:
    """Train one stage or all; a second call goes on where the first one stopped.

    Any setting can be overridden by its dotted name, such as coarse.epochs=3 or engine.strategy=deepspeed.

    On one machine --nproc starts the processes. On several, which must share the data and the run folder, a launcher
    does (the -- keeps torchrun from reading --run as its own):

        torchrun --nnodes 2 --node-rank 0 --master-addr HOST -m -- mbdcnn train ...

        deepspeed --hostfile FILE --module mbdcnn train ...
    """
    from mbdcnn import runs
    from mbdcnn.config import STAGES, load, override
    from mbdcnn.data.fingerprint import keep
    from mbdcnn.data.index import index_folder
    from mbdcnn.layout import FINGERPRINT
    from mbdcnn.presets import preset
    from train.pixels import with_copies
    from train.plan import plan_run
    from train.processes import run_processes, world_size
    from train.stages import train_stages

    if preset_name and config_file:
        raise UserError("--preset and --config both name the settings to start from; leave out one.")
    named = load(config_file) if config_file else preset(preset_name) if preset_name else None
    world = world_size(nproc)
    config = override(named or (runs.begun_with(run) if run else None) or preset("compact"), settings)
    run = run or Path("runs") / f"{data_folder.resolve().name}-{config.preset}"
    stages = STAGES if stage == "all" else (stage,)
    manifest = index_folder(data_folder, progress=sys.stderr.isatty())
    plan = with_copies(plan_run(run, stages, config, manifest, world), stages, manifest, prepared)
    first = int(os.environ.get("RANK", 0)) == 0
    if first and not all(runs.is_finished(run, name) for name in stages):
        document = keep(manifest, run / FINGERPRINT, progress=sys.stderr.isatty())
        warn_of_leakage(document["leakage"], str(run / FINGERPRINT))
    run_processes(train_stages, world, plan, stages)
    if first:
        result = runs.provenance(run)
        scores = [f"{s} {m['score']} {m['best'][m['score']]:.4f}" for s, m in result["stages"].items()]
        answer(result, as_json, f"{run}: {', '.join(scores)} (validation)")


@click.command()
@click.argument("stage", type=click.Choice(["coarse", "mask", "enhanced"]))
@click.argument("sources", nargs=-1, type=FOLDER, required=True, metavar="RUN RUN...")
@click.option("--run", type=FOLDER, required=True, help="Folder of the new run.")
@json_option
def average(stage: str, sources: tuple[Path, ...], run: Path, as_json: bool) -> None:
    """Make a stage of a new run of the mean of its weights in several runs.

    The runs must have been trained on the same data, from the same weights, and may differ in seed, augmentation or
    learning rate. The mean is scored on the validation split; train the next stage in the new run.
    """
    from train.average import average as average_runs

    made = average_runs(run, stage, sources, sys.stderr.isatty())
    score = made["score"]
    each = ", ".join(f"{source['run']} {source['best'][score]:.4f}" for source in made["averaged"])
    answer(made, as_json, f"{run}: {stage} {score} {made['best'][score]:.4f}; {each} (validation)")


@click.command()
@click.option("--repository", type=FOLDER, help="Model repository.  [default: the released networks]")
@click.option("--data", "data_folder", type=FOLDER, required=True, help="Folder with the images to train on.")
@click.option("--run", type=FOLDER, required=True, help="Folder of the new run.")
@json_option
def adopt(repository: Path | None, data_folder: Path, run: Path, as_json: bool) -> None:
    """Make a run of the networks that a model repository serves, to train on.

    Fine-tune them on your images with `mbdcnn train all --run NEW bootstrap.start_run=RUN`.
    """
    from mbdcnn.data.index import index_folder
    from serve.adopt import adopt as adopt_networks
    from serve.released import RELEASED

    progress = sys.stderr.isatty()
    repository = repository or RELEASED
    made = adopt_networks(repository, index_folder(data_folder, progress=progress), run, progress)
    answer(made, as_json, f"{run}: the networks of {repository}; start from them with bootstrap.start_run={run}")


@click.command()
@click.option("--run", type=FOLDER, help="Run folder; the networks that are trained are scored.")
@click.option("--repository", type=FOLDER, help="Model repository that `mbdcnn export` wrote, instead of a run.")
@click.option("--data", "data_folder", type=FOLDER, required=True, help="Folder in the ISIC-2017, PH2 or plain layout.")
@click.option("--split", type=click.Choice(SPLITS), default="validation", show_default=True)
@click.option(
    "--protocol",
    type=PROTOCOL,
    default="single",
    show_default=True,
    help="One view of an image, or the authors' 18 views and 9 crops: 63 network passes instead of 3.",
)
@click.option(
    "--out",
    type=FOLDER,
    help="Folder of the results.  [default: RUN/evaluation/SPLIT, or SPLIT-authors; REPOSITORY-evaluation/SPLIT]",
)
@json_option
def evaluate(
    run: Path | None,
    repository: Path | None,
    data_folder: Path,
    split: str,
    protocol: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Score a run, or a model repository, on a split: JSON, a CSV line per image, a page of pictures."""
    from mbdcnn import runs
    from mbdcnn.data.index import index_folder
    from train.evaluate import evaluate as score
    from train.evaluate import evaluate_run, heading

    if (run is None) == (repository is None):
        raise UserError("Name what to score: either --run RUN or --repository REPOSITORY.")
    place = split if protocol == "single" else f"{split}-{protocol}"
    progress = sys.stderr.isatty()
    if run is not None:
        loaded = runs.load_finished(run)  # first: that a stage is missing should not be said after minutes of indexing
        manifest = index_folder(data_folder, progress=progress)
        out = _made(out or run / "evaluation" / place)
        result = evaluate_run(run, loaded, manifest, split, out, protocol, progress)
    else:
        from serve.answers import RepositoryNetworks

        assert repository is not None
        if protocol != "single":
            raise UserError(
                f"A model repository has views of its own; score the run that it was exported from with --protocol "
                f"{protocol}."
            )
        networks = RepositoryNetworks(repository)
        manifest = index_folder(data_folder, progress=progress)
        # beside the repository, which holds nothing that its export did not write
        whole = repository.resolve()
        out = _made(out or whole.with_name(f"{whole.name}-evaluation") / place)
        result = score(
            networks,
            manifest,
            split,
            out,
            networks.preprocessing,
            progress=progress,
            title=heading(f"{whole.name}, version {networks.version},", manifest, split),
            classes=networks.classes,
        )
    answer(result, as_json, f"{_scores(result)}; report in {out / 'report.html'}")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@click.command()
@click.option("--run", type=FOLDER, required=True, help="Run folder with all three stages.")
@click.option("--data", "data_folder", type=FOLDER, required=True, help="Folder with training and validation images.")
@click.option(
    "--foreign", type=FOLDER, help="Folder of pictures that are not dermoscopic, to judge the familiarity by."
)
@click.option(
    "--views",
    type=click.Choice(["1", "2", "4"]),
    default="1",
    show_default=True,
    help="Ask each network about mirror images too and take the mean: better, and twice or four times the work.",
)
@json_option
def calibrate(run: Path, data_folder: Path, foreign: Path | None, views: str, as_json: bool) -> None:
    """Fit and judge the probabilities' temperature, the doubts and the familiarity of a run.

    Later evaluations and exports of the run use them. Writes calibration.json and calibration.html into the run.
    """
    from mbdcnn import runs
    from mbdcnn.config import STAGES
    from mbdcnn.data.index import index_folder
    from serve.client import image_files
    from train.calibrate import PAGE
    from train.calibrate import calibrate as calibrate_run

    for stage in STAGES:
        runs.require_stage(run, stage)
    pictures = image_files(foreign) if foreign else ()
    manifest = index_folder(data_folder, progress=sys.stderr.isatty())
    found = calibrate_run(run, manifest, pictures, sys.stderr.isatty(), views=int(views))
    before, after = (found["calibration"][name]["ECE"] for name in ("before", "after"))
    said = f"temperature {found['temperature']:.2f}, expected calibration error {before:.3f} -> {after:.3f}"
    answer(found, as_json, f"{said}; page in {run / PAGE}")


@click.command()
@click.argument("name")
@click.argument("settings", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--data", "data_folder", type=FOLDER, required=True, help="ISIC-2017, or a folder in its layout.")
@click.option("--ph2", type=FOLDER, help="PH2, for table2 and table3.")
@click.option("--preset", "preset_name", default="compact", show_default=True, help="Starting point of the settings.")
@click.option("--budget", default=1.0, show_default=True, help="Share of the preset's epochs.")
@click.option("--seeds", default=1, show_default=True, help="Repetitions, for means and deviations.")
@click.option("--protocol", type=PROTOCOL, default="single", show_default=True)
@click.option("--out", type=FOLDER, default=Path("runs", "reproduce"), show_default=True, help="For all results.")
@prepared_option
@nproc_option
@json_option
def reproduce(
    name: str,
    settings: tuple[str, ...],
    data_folder: Path,
    ph2: Path | None,
    preset_name: str,
    budget: float,
    seeds: int,
    protocol: str,
    out: Path,
    prepared: str | None,
    nproc: str,
    as_json: bool,
) -> None:
    """Repeat a table or figure of the paper: table1 to table7, fig5 to fig9.

    What one experiment has trained is not trained again by another. A second call goes on where the first one stopped.
    """
    from mbdcnn.config import override
    from mbdcnn.data.index import index_folder
    from mbdcnn.presets import preset
    from train.pixels import choose_copies
    from train.processes import count_processes
    from train.reproduce.catalog import find
    from train.reproduce.runner import Scale
    from train.reproduce.runner import reproduce as run_experiment

    experiment = find(name)
    config = override(preset(preset_name), settings)
    scale = Scale(budget, seeds, protocol, count_processes(nproc))
    manifest = index_folder(data_folder, progress=sys.stderr.isatty())
    other = index_folder(ph2, progress=sys.stderr.isatty()) if ph2 else None
    copies = choose_copies(manifest, prepared, config)
    document = run_experiment(experiment, config, manifest, other, out, scale, settings, copies)
    answer(document, as_json, "\n".join([*document["findings"], f"{out / name}.md"]))


@click.command()
@click.argument("run", type=FOLDER)
@json_option
def status(run: Path, as_json: bool) -> None:
    """Show how far a run is: its stages, best scores, the time spent and left, and what comes next."""
    from mbdcnn._status_table import status_table
    from mbdcnn.status import run_status

    found = run_status(run)
    answer(found.document(), as_json, status_table(found))


def _scores(result: dict[str, Any]) -> str:
    """The headline of an evaluation."""
    parts = [f"{name} JA {result[name]['JA']:.3f}" for name in ("coarse", "enhanced") if result[name]]
    mean_auc = result["classification"] and result["classification"]["mean_AUC"]
    parts += [] if mean_auc is None else [f"mean AUC {mean_auc:.3f}"]
    unknown = result.get("n_unknown_labels")
    parts += [f"{unknown} images of classes that the run does not know"] if unknown else []
    return f"{result['n_images']} images: {', '.join(parts) or 'nothing to compare with'}"
