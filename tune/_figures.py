"""The paper's figures 5 and 6 from a search's points, in the documents that `train.reproduce` draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from train.reproduce.catalog import EXPERIMENTS
from tune._outcome import Tried, best_of, without_lambda
from tune._space import LAMBDA, MARGIN_FIELD, OPTIMUM, K, in_words

MEASURE = "coarse.JA"


def paper_figures(points: Sequence[Tried], search: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The documents of the figures for which there are enough points.

    Args:
        points: of the space `paper`, whose settings are K, margin and lambda.
        search: the search's own document.
    """
    at_paper_lambda = [p for p in points if p.point[LAMBDA] == OPTIMUM[LAMBDA]]
    best = best_of(at_paper_lambda)
    documents = [_document("fig5", at_paper_lambda, search)]
    if best is not None:
        over_lambda = [p for p in points if without_lambda(p.point) == without_lambda(best.point)]
        if len(over_lambda) > 1:
            documents.append(_document("fig6", over_lambda, search))
    return documents


def _document(name: str, points: Sequence[Tried], search: Mapping[str, Any]) -> dict[str, Any]:
    experiment = EXPERIMENTS[name]
    shared = ("command", "preset", "settings", "seeds", "data", "machine", "date", "code_version", "n_images")
    fixed = f"lambda = {OPTIMUM[LAMBDA]}" if name == "fig5" else in_words(without_lambda(points[0].point))
    return {
        **{key: search[key] for key in shared},
        "name": name,
        "title": f"{experiment.title}, at {fixed}",
        "kind": experiment.kind,
        "budget": 1.0,
        "protocol": "single",
        "split": "validation",
        "measures": [MEASURE],
        "x_label": experiment.x_label,
        "optimum": experiment.optimum,
        "rows": [_row(name, point, search["seeds"]) for point in points],
        "notes": search["notes"],
    }


def _row(name: str, tried: Tried, seeds: Sequence[int]) -> dict[str, Any]:
    x: Any = {"top_k": tried.point[K], "margin": tried.point[MARGIN_FIELD]} if name == "fig5" else tried.point[LAMBDA]
    by_seed = {trial.seed: trial for trial in tried.trials}
    return {
        "label": in_words(tried.point),
        "x": x,
        "values": {MEASURE: [by_seed[s].JA if s in by_seed and by_seed[s].JA in tried.scores else None for s in seeds]},
        "mean": {MEASURE: tried.mean},
        "std": {MEASURE: tried.std},
        "paper": {},
        "run": [trial.run for trial in tried.trials],
    }
