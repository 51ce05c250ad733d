"""The verb that searches."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from mbdcnn.cli._shared import FOLDER, answer, json_option, prepared_option


@click.command()
@click.argument("settings", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--data", "data_folder", type=FOLDER, required=True, help="Folder in the ISIC-2017 or plain layout.")
@click.option("--out", type=FOLDER, help="Folder of the results.  [default: runs/tune/<data>-<space>-<algorithm>]")
@click.option("--preset", "preset_name", default="compact", show_default=True, help="Starting point of the settings.")
@click.option("--space", "space_name", default="paper", show_default=True, help="paper or wide.")
@click.option("--also", multiple=True, metavar="NAME", help="Also vary learning_rate or augmentation.")
@click.option("--encoder", "encoders", multiple=True, metavar="NAME", help="Also try this encoder; several times.")
@click.option(
    "--algorithm", "algorithm_name", default="grid", show_default=True, help="grid, random, asha, optuna or pbt."
)
@click.option("--points", type=int, help="How many points.  [default: a grid's all, else 20; pbt's population 8]")
@click.option("--reduction", default=4, show_default=True, help="asha and optuna: one of so many trials trains on.")
@click.option("--seeds", default=1, show_default=True, help="Of the best points, for means and deviations.")
@click.option("--finalists", default=5, show_default=True, help="How many of the best points get all seeds.")
@click.option("--address", help="Ray's: HOST:PORT, auto or local.  [default: the job's own, else local]")
@click.option("--processes", default=1, show_default=True, help="Of a trial, that train together.")
@click.option("--cpus", default=1.0, show_default=True, help="Of each process.")
@click.option("--gpus", default=0.0, show_default=True, help="Of each process; 0.5 lets two share one.")
@click.option("--at-once", type=int, help="Trials at most.  [default: as many as there is room for]")
@click.option("--retries", default=1, show_default=True, help="Of a trial that fails.")
@click.option("--resume", is_flag=True, help="Go on with what the results folder holds.")
@prepared_option
@json_option
def tune(
    settings: tuple[str, ...],
    data_folder: Path,
    out: Path | None,
    preset_name: str,
    space_name: str,
    also: tuple[str, ...],
    encoders: tuple[str, ...],
    algorithm_name: str,
    points: int | None,
    reduction: int,
    seeds: int,
    finalists: int,
    address: str | None,
    processes: int,
    cpus: float,
    gpus: float,
    at_once: int | None,
    retries: int,
    resume: bool,
    prepared: str | None,
    as_json: bool,
) -> None:
    """Search the rank loss's K, margin and lambda with Ray Tune, by training coarse-SN.

    The space paper has the values of the paper's figures 5 and 6: K and margin, then lambda at the best of them. The
    space wide draws all three from wide ranges.

    Ends with best.yaml, which `mbdcnn train --config` takes, trials.csv, the figures and report.html.
    """
    from mbdcnn.config import override
    from mbdcnn.data.index import index_folder
    from mbdcnn.presets import preset
    from tune._algorithm import algorithm_of
    from tune._search import Search, run_search
    from tune._space import space_of
    from tune._work import Share

    config = override(preset(preset_name), settings)
    space = space_of(space_name, also, encoders, config)
    algorithm = algorithm_of(algorithm_name, points, config.coarse.epochs, reduction, config.seed, space)
    search = Search(
        space=space,
        algorithm=algorithm,
        seeds=seeds,
        finalists=finalists,
        share=Share(processes, cpus, gpus),
        retries=retries,
        at_once=at_once,
        address=address,
        resume=resume,
        settings=settings,
        command=shlex.join(["mbdcnn", *sys.argv[1:]]),
    )
    manifest = index_folder(data_folder, progress=sys.stderr.isatty())
    out = out or Path("runs", "tune", f"{data_folder.resolve().name}-{space.name}-{algorithm.name}")
    document = run_search(search, config, manifest, prepared, out)
    answer(document, as_json, "\n".join([*document["findings"], f"report in {out / 'report.html'}"]))
