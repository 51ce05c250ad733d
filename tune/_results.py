"""The results folder of a search: what it says of itself, and all that is written when a round ends."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mbdcnn import config as configuration
from mbdcnn import runs
from mbdcnn.errors import UserError
from mbdcnn.files import replacing
from train.reproduce.render import write_report
from tune._figures import paper_figures
from tune._outcome import best_of, findings, tried
from tune._report import write_search_page
from tune._round import Trial
from tune._work import Work

DOCUMENT, BEST, TRIALS, PAGE = "search.json", "best.yaml", "trials.csv", "report.html"


def require_same_search(out: Path, spec: Mapping[str, Any], resume: bool) -> None:
    """Refuse a results folder that cannot be used for a search.

    Args:
        out: the folder.
        spec: all that the search is made of.
        resume: whether to go on with what is there.

    Raises:
        UserError: it holds another search, or this one while `resume` is not set, or is damaged.
    """
    file = out / DOCUMENT
    if not file.is_file():
        return
    try:
        begun = json.loads(file.read_text())["search"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{file} is damaged; name another --out.") from None
    wanted = json.loads(json.dumps(spec))
    changed = _changed(begun, wanted)
    if changed:
        raise UserError(f"{out} holds another search ({', '.join(changed)}, see {file}); name another --out.")
    if not resume:
        raise UserError(f"{out} holds this search already; go on with it with --resume, or name another --out.")


def write_results(work: Work, head: Mapping[str, Any], trials: Sequence[Trial], done: bool) -> dict[str, Any]:
    """Write everything that a reader or `mbdcnn train --config` may want, each file whole or not at all.

    Args:
        work: what all trials share.
        head: the search's document as far as it was known before the first trial.
        trials: all that were tried so far.
        done: whether that is all.

    Returns:
        The document in `search.json`.
    """
    out, points = work.out, tried(trials)
    best = best_of(points)
    epochs = work.config.coarse.epochs
    document = {
        **head,
        "finished": done,
        "epochs_trained": sum(trial.epochs for trial in trials),
        "epochs_of_all_to_their_end": epochs * len(trials),
        "best": best
        and {"point": best.point, "JA": best.mean, "std": best.std, "seeds": [trial.seed for trial in best.trials]},
        "findings": findings(points, trials, epochs) if trials else [],
        "points": [
            {
                "point": p.point,
                "succeeded": p.succeeded,
                "JA": p.mean,
                "std": p.std,
                "trials": [asdict(trial) for trial in p.trials],
            }
            for p in points
        ],
        "population": [asdict(trial) for trial in trials if not trial.run],
    }
    runs.write_json(out / DOCUMENT, document)
    if not trials:
        return document
    _write_trials(out / TRIALS, trials)
    if best is not None:
        configuration.save(work.settings_of(best.point, work.config.seed), out / BEST)
    scored = best is not None and head["search"]["space"] == "paper" and len(best.point) == 3
    figures = paper_figures(points, document) if scored else []
    for figure in figures:
        write_report(figure, out)
    write_search_page(out / PAGE, document, points, trials, figures)
    return document


def _write_trials(path: Path, trials: Sequence[Trial]) -> None:
    fields = list(trials[0].point)
    rest = ("seed", "state", "JA", "best_epoch", "epochs", "seconds", "run", "reason")
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["round", *fields, *rest])
        for trial in trials:
            writer.writerow([trial.round, *(trial.point[f] for f in fields), *(getattr(trial, name) for name in rest)])


def _changed(begun: Any, wanted: Any, prefix: str = "") -> list[str]:
    """Dotted names of what differs."""
    if not isinstance(begun, dict) or not isinstance(wanted, dict):
        return [] if begun == wanted else [prefix]
    names = [*wanted, *(name for name in begun if name not in wanted)]
    return [
        found
        for name in names
        for found in _changed(begun.get(name), wanted.get(name), f"{prefix}.{name}" if prefix else name)
    ]
