"""The tables of a model card, from the documents of `evaluate` and `calibrate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NONE = "–"


def comparison(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Coarse JA, enhanced JA, their difference and mean AUC of several evaluations, each with its interval."""
    lines = []
    for name, scores in rows.items():
        spread = scores.get("intervals") or {}
        cells = [_scored(scores[network], spread.get(network), "JA") for network in ("coarse", "enhanced")]
        both = scores["coarse"] and scores["enhanced"]
        gain = {"JA": scores["enhanced"]["JA"] - scores["coarse"]["JA"]} if both else None
        cells.append(_scored(gain, spread.get("enhanced_minus_coarse"), "JA", sign="+"))
        cells.append(_scored(scores["classification"], spread.get("classification"), "mean_AUC"))
        lines.append([name, *cells])
    return markdown(["", "coarse JA", "enhanced JA", "gain", "mean AUC"], lines)


def segmentation(scores: Mapping[str, Any]) -> str:
    """All five measures of both masks."""
    measures = ("JA", "DI", "AC", "SE", "SP")
    spread = scores.get("intervals") or {}
    lines = [
        [network, *(_scored(scores[network], spread.get(network), measure) for measure in measures)]
        for network in ("coarse", "enhanced")
        if scores[network] is not None
    ]
    return markdown(["mask", *measures], lines)


def classification(scores: Mapping[str, Any]) -> str:
    """The four measures of each class against the rest."""
    measures = ("AUC", "AC", "SE", "SP")
    diagnosis = scores["classification"] or {}
    spread = (scores.get("intervals") or {}).get("classification") or {}
    lines = [
        [name.replace("_", " "), *(_scored(values, spread.get(name), measure) for measure in measures)]
        for name, values in diagnosis.items()
        if name != "mean_AUC"
    ]
    return markdown(["class against the rest", *measures], lines)


def calibration(found: Mapping[str, Any]) -> str:
    """Calibration errors before and after the temperature."""
    scores = found["calibration"]
    lines = [
        [f"{name} (temperature {1 if name == 'before' else found['temperature']:.2f})"]
        + [f"{scores[name][measure]:.3f}" for measure in ("ECE", "NLL", "Brier")]
        for name in ("before", "after")
    ]
    return markdown(["probabilities", "ECE", "NLL", "Brier"], lines)


def doubts(found: Mapping[str, Any]) -> str:
    """How well each measure of doubt finds bad answers."""
    lines = []
    for of, document in found["doubt"].items():
        for name, scores in (document or {"measures": {}})["measures"].items():
            figures = [f"{scores[key]:.3f}" for key in ("AURC", "random", "oracle")]
            lines.append([of, name.replace("_", " "), *figures, f"{scores['gain']:.2f}"])
    return markdown(["doubt", "measure", "AURC", "guessing", "oracle", "gain"], lines)


def foreign(found: Mapping[str, Any]) -> str:
    """How well foreign pictures are told from dermoscopic ones."""
    lines = [
        [kind, str(scores["images"]), f"{100 * scores['AUROC']:.1f}", f"{100 * scores['passed']:.0f} %"]
        for kind, scores in found["familiarity"]["foreign"].items()
    ]
    return markdown(["not dermoscopic", "pictures", "AUROC", "passed as familiar"], lines)


def trust(scores: Mapping[str, Any], fitted: Mapping[str, Any] | None) -> str:
    """Calibration and doubt of the evaluation itself, with what the repository serves; nothing where not measured.

    Args:
        scores: an evaluation.
        fitted: the calibration that the repository has.
    """
    found = scores.get("trust") or {}
    said = []
    if found.get("calibration"):
        ece, nll, brier = (found["calibration"][key] for key in ("ECE", "NLL", "Brier"))
        said.append(f"expected calibration error {ece:.3f}, NLL {nll:.3f}, Brier {brier:.3f}")
    for of in ("mask", "class"):
        if found.get(f"{of}_doubt"):
            said.append(f"gain of the {of} doubt {found[f'{of}_doubt']['gain']:.2f}")
    if found.get("unfamiliar") is not None:
        said.append(f"{100 * found['unfamiliar']:.0f} % of the images unfamiliar")
    if not said:
        return ""
    same = fitted and (fitted["data"], fitted["split"]) == (scores.get("data"), scores["split"])
    warning = " The temperature was fitted to these very images, which makes them somewhat too good." if same else ""
    return f"In the evaluation above, as served: {', '.join(said)}.{warning}"


def subgroups(scores: Mapping[str, Any]) -> str:
    """A line for each group."""
    lines = []
    for division, groups in scores.get("subgroups", {}).items():
        for group, values in groups.items():
            cells = (_group(values[measure]) for measure in ("JA", "accuracy", "mean_AUC"))
            lines.append([f"{division}: {group.replace('_', ' ')}", str(values["images"]), *cells])
    return markdown(["group", "images", "JA", "right class", "mean AUC"], lines)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a sentence where it would have no line."""
    if not rows:
        return "Not measured."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _scored(scores: Mapping[str, Any] | None, spread: Mapping[str, Any] | None, measure: str, sign: str = "") -> str:
    value = None if scores is None else scores[measure]
    if value is None:
        return NONE
    bounds = None if spread is None else spread.get(measure)
    return f"{100 * value:{sign}.1f}" + _bounds(bounds)


def _group(score: Mapping[str, Any] | None) -> str:
    return NONE if score is None else f"{100 * score['value']:.1f}{_bounds(score['interval'])}"


def _bounds(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f" ({100 * bounds[0]:.1f} to {100 * bounds[1]:.1f})"
