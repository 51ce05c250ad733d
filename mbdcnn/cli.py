"""The command `mbdcnn`: every verb, and the only module that knows all rooms.

Rooms are imported by the verb that needs them, so that each works without the others' packages. With `--json` a verb
prints one document on standard output; everything else goes to standard error. What a user can mend ends as one
sentence and exit code 2.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from mbdcnn import __version__
from mbdcnn.classes import SPLITS
from mbdcnn.errors import UserError, explain

# Waiting OpenMP threads sleep instead of spinning: DALI, the networks and the user's other work share the cores, and
# on a busy machine spinning threads cost up to four times the time. Read once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# package -> the extra that brings it, to name the one that is missing; the room serve names its own
_EXTRAS = {"nvidia": "train"}
# verb -> what of its work an interruption leaves whole
_RESUMABLE = {("train",): "epoch", ("reproduce",): "epoch", ("data", "prepare"): "image"}
_FOLDER = click.Path(path_type=Path)
_PROTOCOL = click.Choice(["single", "authors"])
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _json_option(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")(command)


def _nproc_option(command: _Command) -> _Command:
    words = "Processes: a number, or auto (one per GPU, else one)."
    return click.option("--nproc", default="auto", show_default=True, help=words)(command)


def _prepared_option(command: _Command) -> _Command:
    words = "Folder of prepared copies to train on, or none for the originals.  [default: DATA/prepared if it fits]"
    return click.option("--prepared", metavar="FOLDER", help=words)(command)


def _answer(document: object, as_json: bool, text: str) -> None:
    """The verb's result: the document for programs, or the text for people."""
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(text, err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mbdcnn")
def cli() -> None:
    """MB-DCNN for dermoscopy: index data, train, evaluate, repeat the paper's experiments, export, serve, predict."""


@cli.group()
def data() -> None:
    """Draw a sample set; index, check, prepare or show a folder of images."""


@data.command("sample")
@click.argument("folder", type=_FOLDER)
@click.option("--training", default=240, show_default=True, help="Images of the training split.")
@click.option("--validation", default=60, show_default=True, help="Images of the validation split.")
@click.option("--test", default=60, show_default=True, help="Images of the test split.")
@click.option("--extra", default=0, show_default=True, help="Further training images with a label and no mask.")
@click.option("--seed", default=2017, show_default=True, help="Same seed, same pictures.")
@_json_option
def data_sample(folder: Path, training: int, validation: int, test: int, extra: int, seed: int, as_json: bool) -> None:
    """Draw a synthetic dermoscopy set in the ISIC-2017 layout."""
    from mbdcnn.data.sample import write_sample

    counts = {"training": training, "validation": validation, "test": test}
    write_sample(folder, counts, seed=seed, progress=sys.stderr.isatty(), extra=extra)
    text = f"{sum(counts.values()) + extra} images in {folder}; look at them, then: mbdcnn data index {folder}"
    _answer({"folder": str(folder), "seed": seed, "images": counts, "extra": extra}, as_json, text)


@data.command("index")
@click.argument("folder", type=_FOLDER)
@click.option("--out", type=_FOLDER, help="The manifest's file.  [default: FOLDER/manifest.json]")
@_json_option
def data_index(folder: Path, out: Path | None, as_json: bool) -> None:
    """Read and check a folder in the ISIC-2017, PH2 or plain layout; write its manifest."""
    from mbdcnn.data.index import index_folder, summarise
    from mbdcnn.data.leakage import same_files

    manifest = index_folder(folder, progress=sys.stderr.isatty())
    out = out or folder / "manifest.json"
    try:
        manifest.save(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); name another file with --out.") from None
    leaks = [pair.document() for pair in same_files(manifest) if pair.leaks]
    _warn_of_leakage(leaks, f"what `mbdcnn data check {folder}` writes")
    lines = [f"{f.path}: {f.reason}" for f in manifest.faults]
    if manifest.drawn_splits:
        shares = "about 70 % are for training, 15 % for validation and 15 % for the test, drawn one by one"
        mend = "where several show one patient or lesion, give labels.csv a column split"
        lines += [f"{manifest.drawn_splits} images come without a split: {shares}; {mend}"]
    lines += [f"{len(manifest.items)} usable images, {len(manifest.faults)} faults; manifest in {out}"]
    _answer(summarise(manifest) | {"manifest": str(out)}, as_json, "\n".join(lines))


@data.command("show")
@click.argument("folder", type=_FOLDER)
@click.argument("settings", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--out", type=_FOLDER, help="The picture's file.  [default: <data>-augmented.png]")
@click.option("--preset", "preset_name", default="compact", show_default=True, help="Starting point of the settings.")
@click.option("--split", type=click.Choice(SPLITS), default="training", show_default=True)
@click.option("--images", default=6, show_default=True, help="Lines of the sheet; the classes take turns.")
@click.option("--variants", default=5, show_default=True, help="Augmented copies of each image.")
@_json_option
def data_show(
    folder: Path,
    settings: tuple[str, ...],
    out: Path | None,
    preset_name: str,
    split: str,
    images: int,
    variants: int,
    as_json: bool,
) -> None:
    """Draw augmented images with their masks, as the trainers get them, such as with augmentation.rotation_deg=90."""
    from mbdcnn.config import override
    from mbdcnn.data.index import index_folder
    from mbdcnn.presets import preset
    from train.show import write_sheet

    config = override(preset(preset_name), settings)
    out = out or Path(f"{folder.resolve().name}-augmented.png")
    count = write_sheet(out, index_folder(folder, sys.stderr.isatty()), config, split, images, variants)
    document = {"picture": str(out), "split": split, "images": count, "variants": variants, "seed": config.seed}
    _answer(document, as_json, f"{count} images, {variants} variants of each: {out}")


@data.command("prepare")
@click.argument("folder", type=_FOLDER)
@click.option("--out", type=_FOLDER, help="Folder of the copies.  [default: FOLDER/prepared]")
@click.option("--short-side", default=512, show_default=True, help="Of the copies, in pixels; nothing is enlarged.")
@_json_option
def data_prepare(folder: Path, out: Path | None, short_side: int, as_json: bool) -> None:
    """Write reduced copies of images and masks, which are decoded much faster in training.

    A second call makes only what is not there yet.
    """
    from mbdcnn.data.index import index_folder
    from mbdcnn.data.prepared import FOLDER, prepare

    show = sys.stderr.isatty()
    done = prepare(index_folder(folder, show), out or folder / FOLDER, short_side, show)
    text = (
        f"{done['images']} images and {done['masks']} masks in {done['folder']}, {done['already_there']} of them from "
        f"before; {done['bytes_after'] / 1e6:.1f} MB instead of {done['bytes_before'] / 1e6:.1f} MB"
    )
    _answer(done, as_json, text)


@data.command("check")
@click.argument("folder", type=_FOLDER)
@click.option("--out", type=_FOLDER, help="Folder of fingerprint.json and fingerprint.html.  [default: FOLDER]")
@_json_option
def data_check(folder: Path, out: Path | None, as_json: bool) -> None:
    """Look at every image: counts, sizes, lesion areas, colours, duplicates, and leakage between splits."""
    from mbdcnn.data.fingerprint import FILE, describe, save, survey
    from mbdcnn.data.fingerprint_page import write_fingerprint_page
    from mbdcnn.data.index import index_folder

    progress = sys.stderr.isatty()
    out = out or folder
    manifest = index_folder(folder, progress)
    _require_writable(out)
    glances = survey(manifest, progress)
    document = describe(manifest, glances, progress)
    page = out / FILE.replace(".json", ".html")
    try:
        save(document, out / FILE)
        write_fingerprint_page(page, document, manifest, glances)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written ({error.strerror}); name a folder with --out.") from None
    _warn_of_leakage(document["leakage"], str(out / FILE))
    twins = len(document["pairs"]) - len(document["leakage"])
    summary = f"{document['images']} images, {len(document['faults'])} faults, {len(document['leakage'])} pairs that"
    lines = [*document["warnings"], f"{summary} leak, {twins} within a split; page in {page}"]
    _answer(document, as_json, "\n".join(lines))


def _require_writable(out: Path) -> None:
    """Refuse a folder that nothing can be written to, before the minutes that a large data set takes."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); name another folder with --out.") from None


def _warn_of_leakage(leaks: Sequence[Mapping[str, Any]], listed_in: str) -> None:
    from mbdcnn.data.leakage import leakage_warning

    if leaks:
        click.secho(leakage_warning(leaks, listed_in), err=True, fg="red", bold=True)


@cli.command()
@click.argument("stage", type=click.Choice(["coarse", "mask", "enhanced", "all"]))
@click.argument("settings", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--data", "data_folder", type=_FOLDER, required=True, help="Folder in the ISIC-2017 or plain layout.")
@click.option("--run", type=_FOLDER, help="Run folder.  [default: runs/<data>-<preset>]")
@click.option("--preset", "preset_name", help="Starting point of the settings.  [default: the run's own, else compact]")
@_prepared_option
@_nproc_option
@_json_option
def train(
    stage: str,
    settings: tuple[str, ...],
    data_folder: Path,
    run: Path | None,
    preset_name: str | None,
    prepared: str | None,
    nproc: str,
    as_json: bool,
) -> None:
    """Train one stage or all; a second call goes on where the first one stopped.

    Any setting can be overridden by its dotted name, such as coarse.epochs=3. Runs under torchrun too
    (the -- keeps torchrun from reading --run as its own):

        torchrun --nproc-per-node 2 -m -- mbdcnn train ...
    """
    from mbdcnn import runs
    from mbdcnn.config import STAGES, override
    from mbdcnn.data.fingerprint import FILE, keep
    from mbdcnn.data.index import index_folder
    from mbdcnn.presets import preset
    from train.pixels import with_copies
    from train.plan import plan_run
    from train.processes import run_processes, world_size
    from train.stages import train_stages

    begun = runs.begun_with(run) if run and not preset_name else None
    world = world_size(nproc)
    config = override(begun or preset(preset_name or "compact"), settings)
    run = run or Path("runs") / f"{data_folder.resolve().name}-{config.preset}"
    stages = STAGES if stage == "all" else (stage,)
    manifest = index_folder(data_folder, progress=sys.stderr.isatty())
    plan = with_copies(plan_run(run, stages, config, manifest, world), stages, manifest, prepared)
    first = int(os.environ.get("RANK", 0)) == 0
    if first and not all(runs.is_finished(run, name) for name in stages):
        document = keep(manifest, run / FILE, progress=sys.stderr.isatty())
        _warn_of_leakage(document["leakage"], str(run / FILE))
    run_processes(train_stages, world, plan, stages)
    if first:
        result = runs.provenance(run)
        scores = [f"{s} {m['score']} {m['best'][m['score']]:.4f}" for s, m in result["stages"].items()]
        _answer(result, as_json, f"{run}: {', '.join(scores)} (validation)")


@cli.command()
@click.option("--run", type=_FOLDER, required=True, help="Run folder; the networks that are trained are scored.")
@click.option(
    "--data", "data_folder", type=_FOLDER, required=True, help="Folder in the ISIC-2017, PH2 or plain layout."
)
@click.option("--split", type=click.Choice(SPLITS), default="validation", show_default=True)
@click.option(
    "--protocol",
    type=_PROTOCOL,
    default="single",
    show_default=True,
    help="One view of an image, or the authors' 18 views and 9 crops: 63 network passes instead of 3.",
)
@click.option("--out", type=_FOLDER, help="Folder of the results.  [default: RUN/evaluation/SPLIT, or SPLIT-authors]")
@_json_option
def evaluate(run: Path, data_folder: Path, split: str, protocol: str, out: Path | None, as_json: bool) -> None:
    """Score a run on a split: JSON, a CSV line per image, a page of pictures."""
    from mbdcnn import runs
    from mbdcnn.data.index import index_folder
    from train.evaluate import evaluate_run

    loaded = runs.load_finished(run)  # first: that a stage is missing should not be said after minutes of indexing
    manifest = index_folder(data_folder, progress=sys.stderr.isatty())
    out = out or run / "evaluation" / (split if protocol == "single" else f"{split}-{protocol}")
    out.mkdir(parents=True, exist_ok=True)
    result = evaluate_run(run, loaded, manifest, split, out, protocol, sys.stderr.isatty())
    _answer(result, as_json, f"{_scores(result)}; report in {out / 'report.html'}")


@cli.command()
@click.argument("name")
@click.argument("settings", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--data", "data_folder", type=_FOLDER, required=True, help="ISIC-2017, or a folder in its layout.")
@click.option("--ph2", type=_FOLDER, help="PH2, for table2 and table3.")
@click.option("--preset", "preset_name", default="compact", show_default=True, help="Starting point of the settings.")
@click.option("--budget", default=1.0, show_default=True, help="Share of the preset's epochs.")
@click.option("--seeds", default=1, show_default=True, help="Repetitions, for means and deviations.")
@click.option("--protocol", type=_PROTOCOL, default="single", show_default=True)
@click.option("--out", type=_FOLDER, default=Path("runs", "reproduce"), show_default=True, help="For all results.")
@_prepared_option
@_nproc_option
@_json_option
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
    _answer(document, as_json, "\n".join([*document["findings"], f"{out / name}.md"]))


@cli.command()
@click.option("--run", type=_FOLDER, required=True, help="Run folder with all three stages.")
@click.option("--out", type=_FOLDER, required=True, help="The model repository to write.")
@_json_option
def export(run: Path, out: Path, as_json: bool) -> None:
    """Write a complete Triton model repository; fails when ONNX and PyTorch disagree."""
    from serve.export import export as write_repository

    document = write_repository(run, out, progress=sys.stderr.isatty())
    _answer(document, as_json, f"model repository in {out}; serve it: mbdcnn serve --repository {out}")


@cli.command()
@click.option("--repository", type=_FOLDER, required=True, help="Model repository that `mbdcnn export` wrote.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind; loopback unless told otherwise.")
@click.option("--http-port", default=8000, show_default=True)
@click.option("--grpc-port", default=8001, show_default=True)
@click.option("--metrics-port", default=8002, show_default=True)
def serve(repository: Path, host: str, http_port: int, grpc_port: int, metrics_port: int) -> None:
    """Serve a model repository with Triton until Ctrl-C."""
    from serve.server import serve as run_server

    run_server(repository, host=host, http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port)


@cli.command()
@click.argument("images", nargs=-1, type=_FOLDER, required=True)
@click.option("--url", default="127.0.0.1:8001", show_default=True, help="The server's gRPC address, HOST:PORT.")
@click.option("--out", type=_FOLDER, help="Folder for masks, maps, overlays and predictions.csv.")
@click.option("--wait", default=0.0, metavar="SECONDS", help="How long to wait for a server that is still starting.")
@_json_option
def predict(images: tuple[Path, ...], url: str, out: Path | None, wait: float, as_json: bool) -> None:
    """Ask a server for the diagnosis and the lesion mask of images or folders of images."""
    from serve.client import wait_until_ready
    from serve.predict import predict_files

    wait_until_ready(url, wait)
    answers = predict_files(url, list(images), out)
    if as_json:
        click.echo(json.dumps(answers, indent=2))
    if any("error" in answer for answer in answers):
        raise SystemExit(2)


def _scores(result: dict[str, Any]) -> str:
    """The headline of an evaluation."""
    parts = [f"{name} JA {result[name]['JA']:.3f}" for name in ("coarse", "enhanced") if result[name]]
    mean_auc = result["classification"] and result["classification"]["mean_AUC"]
    parts += [] if mean_auc is None else [f"mean AUC {mean_auc:.3f}"]
    unknown = result.get("n_unknown_labels")
    parts += [f"{unknown} images of classes that the run does not know"] if unknown else []
    return f"{result['n_images']} images: {', '.join(parts) or 'nothing to compare with'}"


def main() -> None:
    """Entry of the command; turns what a user can mend, and Ctrl-C, into one line."""
    try:
        cli(prog_name="mbdcnn", standalone_mode=False)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in _EXTRAS:
            raise
        click.echo(f"mbdcnn: {error.name} is not installed; pip install 'mbdcnn[{_EXTRAS[package]}]'.", err=True)
        sys.exit(2)
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and not error.filename:
            raise
        click.echo(f"mbdcnn: {explain(error)}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        after = next((after for verb, after in _RESUMABLE.items() if tuple(sys.argv[1:3])[: len(verb)] == verb), None)
        went_on = f"; the same command goes on after the last whole {after}" if after else ""
        click.echo(f"mbdcnn: stopped{went_on}.", err=True)
        sys.exit(130)
