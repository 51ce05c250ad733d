"""Figures that others published: the paper's own, and its competitors'.

All scores are fractions, under the path that the same measure has in an experiment's document. Only what a public text
states is here; a measure that is missing was not found, which does not say that it was never published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Published:
    """One row of somebody's results.

    Attributes:
        label: what a table calls the row.
        source: authors, venue and year; then anything that makes the row less than fully comparable.
        values: fractions in [0, 1], by dotted path, for example `enhanced.JA`.
    """

    label: str
    source: str
    values: dict[str, float]


@dataclass(frozen=True)
class Paper:
    """What the paper says in one table.

    Attributes:
        rows: arm of the experiment -> fractions in [0, 1] by path; `JA` is the last segmentation network's.
        remark: what makes the figures less than fully comparable.
    """

    rows: Mapping[str, dict[str, float]] = field(default_factory=dict)
    remark: str = ""


def paper_figures(experiment: str, label: str) -> dict[str, float]:
    """The paper's figures for one arm of an experiment, by path; empty where it has none."""
    return dict(PAPER.get(experiment, Paper()).rows.get(label, {}))


def paper_source(experiment: str) -> str:
    """Where an experiment's figures of the paper are from."""
    remark = PAPER.get(experiment, Paper()).remark
    return f"{_XIE}; {remark}" if remark else _XIE


def competitors(experiment: str) -> list[dict[str, Any]]:
    """What others published, as an experiment's document lists it: `label`, `source`, `values`."""
    return [asdict(row) for row in COMPETITORS.get(experiment, ())]


_XIE = "Xie et al., IEEE Transactions on Medical Imaging, 2020 (arXiv:1903.03313)"
_YUAN_LO = "Yuan and Lo, IEEE Journal of Biomedical and Health Informatics, 2019; first in the 2017 challenge"
_FRCN = "Al-masni et al., Computer Methods and Programs in Biomedicine, 2018"
_BI = "Bi et al., Pattern Recognition, 2019"
_MATSUNAGA = "Matsunaga et al., arXiv:1703.03108, 2017; first in the 2017 challenge"
_MENEGOLA = "Menegola et al., arXiv:1703.04819, 2017; best melanoma AUC of the 2017 challenge"
# The evaluation here decides by the largest probability instead.
_CHALLENGE = (
    "test figures as listed by Jojoa Acosta et al., BMC Medical Imaging, 2021, table 4; AC, SE and SP cut at 0.5"
)
_PH2_AUC = "PH2 has no seborrheic keratosis, so the AUC stands beside that of melanoma"
_PH2_SPLIT = "its own way of training and splitting, which need not be the one here"
_VALIDATION = "on the ISIC-2017 validation set"

PAPER: Mapping[str, Paper] = {
    "table1": Paper({"MB-DCNN": {"enhanced.JA": 0.804, "classification.mean_AUC": 0.938}}),
    "table2": Paper({"MB-DCNN": {"enhanced.JA": 0.867, "classification.melanoma.AUC": 0.956}}, _PH2_AUC),
    "table3": Paper({"MB-DCNN": {"enhanced.JA": 0.894, "classification.melanoma.AUC": 0.977}}, _PH2_AUC),
    "table4": Paper({"Dice loss": {"enhanced.JA": 0.770}, "hybrid loss": {"enhanced.JA": 0.800}}, _VALIDATION),
    "table5": Paper(
        {
            "without coarse masks": {"classification.mean_AUC": 0.949},
            "with coarse masks": {"classification.mean_AUC": 0.970},
        },
        _VALIDATION,
    ),
    "table6": Paper(
        {"coarse-SN": {"JA": 0.789}, "mask-CN + enhanced-SN": {"JA": 0.777}, "all three": {"JA": 0.800}},
        _VALIDATION,
    ),
    "table7": Paper(
        {"D-Net transfer": {"JA": 0.762}, "MDC transfer": {"JA": 0.789}, "MB-DCNN": {"JA": 0.800}},
        _VALIDATION,
    ),
}

_ON_PH2 = (
    Published(
        "FrCN (2018)",
        f"{_FRCN}; {_PH2_SPLIT}",
        {
            "enhanced.JA": 0.848,
            "enhanced.DI": 0.918,
            "enhanced.AC": 0.951,
            "enhanced.SE": 0.937,
            "enhanced.SP": 0.957,
        },
    ),
    Published("Bi et al. (2019)", f"{_BI}; {_PH2_SPLIT}", {"enhanced.JA": 0.8590, "enhanced.DI": 0.9210}),
)

COMPETITORS: Mapping[str, tuple[Published, ...]] = {
    "table1": (
        Published("Yuan and Lo (2019)", _YUAN_LO, {"enhanced.JA": 0.765, "enhanced.DI": 0.849, "enhanced.AC": 0.934}),
        Published(
            "FrCN (2018)",
            _FRCN,
            {
                "enhanced.JA": 0.771,
                "enhanced.DI": 0.871,
                "enhanced.AC": 0.940,
                "enhanced.SE": 0.854,
                "enhanced.SP": 0.967,
            },
        ),
        Published("Bi et al. (2019)", _BI, {"enhanced.JA": 0.7773, "enhanced.DI": 0.8566}),
        Published(
            "Matsunaga et al. (2017)",
            f"{_MATSUNAGA}; {_CHALLENGE}",
            {
                "classification.melanoma.AUC": 0.868,
                "classification.melanoma.AC": 0.828,
                "classification.melanoma.SE": 0.735,
                "classification.melanoma.SP": 0.851,
            },
        ),
        Published(
            "Menegola et al. (2017)",
            f"{_MENEGOLA}; {_CHALLENGE}",
            {
                "classification.melanoma.AUC": 0.874,
                "classification.melanoma.AC": 0.872,
                "classification.melanoma.SE": 0.547,
                "classification.melanoma.SP": 0.950,
            },
        ),
    ),
    "table2": _ON_PH2,
    "table3": _ON_PH2,
}
