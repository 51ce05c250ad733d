"""What came out of an experiment, as one JSON document: rows, means, and whether the paper's directions hold."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from train.reproduce.catalog import Arm, Claim


def measured(evaluation: Mapping[str, Any], path: str) -> float | None:
    """A figure of an evaluation by its dotted path; `JA` is the last segmentation network's; None where undefined."""
    if path == "JA":
        path = "enhanced.JA" if evaluation["enhanced"] else "coarse.JA"
    found: Any = evaluation
    for part in path.split("."):
        found = found and found[part]
    return found


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean of those that are defined; None where none is."""
    known = _known(values)
    return statistics.fmean(known) if known else None


def row(
    arm: Arm,
    measures: Sequence[str],
    seeds: Sequence[int],
    results: Mapping[int, Mapping[str, float | None]],
    runs: Mapping[int, Sequence[str]],
    paper: Mapping[str, float],
) -> dict[str, Any]:
    """One arm's row.

    Args:
        arm: what was trained.
        measures: to report.
        seeds: that are asked for.
        results: seed -> measure -> fraction, of the seeds that are done.
        runs: seed -> run folders.
        paper: measure -> fraction.
    """
    values = {m: [results.get(seed, {}).get(m) for seed in seeds] for m in measures}
    known = {m: _known(values[m]) for m in measures}
    return {
        "label": arm.label,
        "x": arm.x,
        "series": arm.series,
        "values": values,
        "mean": {m: mean_of_known(values[m]) for m in measures},
        "std": {m: statistics.stdev(known[m]) if len(known[m]) > 1 else None for m in measures},
        "paper": dict(paper),
        "run": [folder for seed in seeds for folder in runs.get(seed, ())],
    }


def findings(claims: Sequence[Claim], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each of the paper's directions in a sentence: how far ours goes the same way, seed by seed."""
    by_label = {row["label"]: row for row in rows}
    return [
        sentence for claim in claims if (sentence := _finding(claim, by_label[claim.higher], by_label[claim.lower]))
    ]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _finding(claim: Claim, higher: Mapping[str, Any], lower: Mapping[str, Any]) -> str | None:
    pairs = zip(higher["values"][claim.measure], lower["values"][claim.measure], strict=True)
    gains = [100 * (a - b) for a, b in pairs if a is not None and b is not None]
    if not gains:
        return None
    mean, won = statistics.fmean(gains), sum(gain > 0 for gain in gains)
    if won == len(gains):
        verdict = "holds"
    elif won == 0:
        verdict = "does not hold"
    else:
        verdict = f"holds for {won} of {len(gains)} seeds"
    spread = f" (by seed {', '.join(f'{gain:+.1f}' for gain in gains)})" if len(gains) > 1 else " (one seed)"
    published = higher["paper"].get(claim.measure), lower["paper"].get(claim.measure)
    paper = f"; paper {100 * (published[0] - published[1]):+.1f}" if None not in published else ""
    return f"{claim.higher} > {claim.lower}, {claim.measure}: {verdict}, {mean:+.1f} points{spread}{paper}."
