"""The report's table of subgroups."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from mbdcnn.page import table, words

_MEASURES = (("JA", "JA"), ("accuracy", "right class"), ("mean_AUC", "mean AUC"))


def subgroup_section(subgroups: Mapping[str, Mapping[str, Any]]) -> str:
    """A section with a line for each group (`train._subgroups`); nothing for none."""
    if not subgroups:
        return ""
    rows = []
    for division, groups in subgroups.items():
        for position, (group, scores) in enumerate(groups.items()):
            cells = (_score(scores[measure]) for measure, _ in _MEASURES)
            first = f"<strong>{escape(division)}</strong>" if position == 0 else ""
            rows.append([first, escape(words(group)), str(scores["images"]), *cells])
    head = ["", "", "images", *(title for _, title in _MEASURES)]
    note = (
        '<p class="note">A group of few images has a wide interval, and tells little. Dark surround, scale, hair and '
        "skin are told by simple image processing, which errs on some; ITA is the individual typology angle of "
        "the skin beside the lesion, which the camera's exposure and white balance change too.</p>"
    )
    return f'<h2>Subgroups</h2><div class="box">{table(head, rows)}{note}</div>'


def _score(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "–"
    value = f"{100 * score['value']:.1f}"
    if score["interval"] is None:
        return value
    low, high = (f"{100 * bound:.1f}" for bound in score["interval"])
    return f'{value} <span class="range">{low} to {high}</span>'
