"""The report's table of calibration and doubt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mbdcnn.page import table


def trust_section(trust: Mapping[str, Any]) -> str:
    """A section on what `train._trust` measured; nothing where it measured nothing."""
    rows = []
    if trust.get("calibration"):
        scores = trust["calibration"]
        rows.append(["probabilities", f"ECE {scores['ECE']:.3f}, NLL {scores['NLL']:.3f}, Brier {scores['Brier']:.3f}"])
    for of in ("mask", "class"):
        found = trust.get(f"{of}_doubt")
        if found:
            areas = f"{found['AURC']:.3f}, guessing {found['random']:.3f}, oracle {found['oracle']:.3f}"
            rows.append([f"doubt of the {of}", f"gain {found['gain']:.2f} (area {areas})"])
    if trust.get("unfamiliar") is not None:
        rows.append(["unfamiliar images", f"{100 * trust['unfamiliar']:.1f} %"])
    if not rows:
        return ""
    note = (
        '<p class="note">ECE: how far confidence and the share of right answers are apart. Gain: how much better the '
        "least doubted answers are, from 0 for guessing to 1 for knowing the risk (risk-coverage curve; risk: 1 - JA, "
        "or a wrong class). An unfamiliar image lies farther from the training images than 95 % of those that the run "
        "was calibrated on; on these, the probabilities' scores are somewhat too good, and calibration.html has them "
        "in folds.</p>"
    )
    return f'<h2>Calibration and doubt</h2><div class="box">{table(["", ""], rows)}{note}</div>'
