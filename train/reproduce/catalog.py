"""The experiments of Xie et al. (2020): what each compares, and what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import unknown

TOP_K = (10, 30, 50, 100, 150)
MARGIN = (0.1, 0.2, 0.3, 0.4)
LAMBDA_RANK = (0.01, 0.05, 0.1, 0.5)
# The paper names the ends of both ranges.
PIXEL_LABELS = (100, 250, 500, 1000, 1500, 2000)
IMAGE_LABELS = (500, 1000, 1500, 2000, 2500, 3320)
SHARES = (0.1, 0.25, 0.5, 1.0)  # of the labels there are, for data sets that are smaller than the paper's

NO_MASKS = "network.mask_channel=false"
SEGMENTATION = ("JA", "DI", "AC", "SE", "SP")
ONE_CLASS = ("AUC", "AC", "SE", "SP")


@dataclass(frozen=True)
class Arm:
    """One of the things that are compared.

    Attributes:
        label: of its row; also the key of the paper's figures.
        stage: the last one that is trained; those that it needs are trained before it.
        settings: overrides of the preset's.
        x: where it lies on the axis (or axes) of a plot.
        series: the line of a plot that it belongs to.
    """

    label: str
    stage: str
    settings: tuple[str, ...] = ()
    x: float | dict[str, float] | None = None
    series: str | None = None


@dataclass(frozen=True)
class Claim:
    """A direction that the paper reports: one arm scores higher than another."""

    higher: str
    lower: str
    measure: str


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper.

    Attributes:
        name: the verb's argument.
        title: in a few words.
        kind: `table`, `curve`, `grid` or `maps`.
        measures: what is reported: dotted paths into an evaluation, or `JA`, which is the last segmentation network's.
        arms: of a data set.
        claims: directions that the paper reports.
        split: of the evaluation.
        ph2: "" for ISIC-2017 alone, `direct` to score on PH2, `folds` to fine-tune on it.
        x_label: what a curve's `x` is.
        optimum: the paper's choice: `{"x": ...}` for a curve, both settings by name for a grid.
        notes: what a reader of the result must know.
    """

    name: str
    title: str
    kind: str
    measures: tuple[str, ...]
    arms: Callable[[Manifest], list[Arm]]
    claims: tuple[Claim, ...] = ()
    split: str = "validation"
    ph2: str = ""
    x_label: str = ""
    optimum: Mapping[str, float] | None = None
    notes: tuple[str, ...] = ()


def find(name: str) -> Experiment:
    """An experiment by name.

    Raises:
        UserError: no such experiment.
    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def _fixed(*arms: Arm) -> Callable[[Manifest], list[Arm]]:
    return lambda manifest: list(arms)


def _transfers(manifest: Manifest) -> list[Arm]:
    """Proxy labels need images without a mask: where there are none, half of the masks are left out for every arm."""
    training = manifest.select("training")
    masks = len(manifest.select("training", masks=True))
    shared = () if any(i.mask is None for i in training) else (f"supervision.pixel_labels={masks // 2}",)
    return [
        Arm("D-Net transfer", "enhanced", ("network.e_layer=decoder", *shared)),
        Arm("MDC transfer", "enhanced", ("network.e_layer=none", "bootstrap.proxy_labels=true", *shared)),
        Arm("MB-DCNN", "enhanced", shared),
    ]


def _grid(manifest: Manifest) -> list[Arm]:
    return [
        Arm(
            f"K = {top_k}, margin = {margin}",
            "coarse",
            (f"loss.top_k={top_k}", f"loss.margin={margin}"),
            {"top_k": top_k, "margin": margin},
        )
        for top_k in TOP_K
        for margin in MARGIN
    ]


def _lambdas(manifest: Manifest) -> list[Arm]:
    return [Arm(f"lambda = {weight}", "coarse", (f"loss.lambda_rank={weight}",), weight) for weight in LAMBDA_RANK]


def _pixel_labels(manifest: Manifest) -> list[Arm]:
    counts = _counts(PIXEL_LABELS, len(manifest.select("training", masks=True)))
    kinds = (("coarse-SN alone", "coarse"), ("enhanced-SN, helped by mask-CN", "enhanced"))
    return [
        Arm(f"{series}, {n} pixel labels", stage, (f"supervision.pixel_labels={n}",), n, series)
        for series, stage in kinds
        for n in counts
    ]


def _image_labels(manifest: Manifest) -> list[Arm]:
    counts = _counts(IMAGE_LABELS, len(manifest.select("training", labels=True)))
    kinds: Sequence[tuple[str, tuple[str, ...]]] = (("without coarse masks", (NO_MASKS,)), ("with coarse masks", ()))
    return [
        Arm(f"{series}, {n} image labels", "mask", (f"supervision.image_labels={n}", *settings), n, series)
        for series, settings in kinds
        for n in counts
    ]


def _counts(wanted: Sequence[int], available: int) -> list[int]:
    """The paper's numbers of labels as far as the data set goes, and all of its labels."""
    fitting = [n for n in wanted if n < available]
    if len(fitting) < 3:
        fitting = [round(share * available) for share in SHARES[:-1]]
    return [*fitting, available]


_FULL = Arm("MB-DCNN", "enhanced")
_WITHOUT, _WITH = Arm("without coarse masks", "mask", (NO_MASKS,)), Arm("with coarse masks", "mask")
_BOTH_TASKS = (
    *(f"enhanced.{m}" for m in SEGMENTATION),
    *(f"classification.melanoma.{m}" for m in ONE_CLASS),
    *(f"classification.seborrheic_keratosis.{m}" for m in ONE_CLASS),
    "classification.mean_AUC",
)
_PH2_TASKS = (*(f"enhanced.{m}" for m in SEGMENTATION), *(f"classification.melanoma.{m}" for m in ONE_CLASS))
_AUCS = ("classification.melanoma.AUC", "classification.seborrheic_keratosis.AUC", "classification.mean_AUC")

EXPERIMENTS = {
    e.name: e
    for e in (
        Experiment("table1", "the full model on ISIC-2017", "table", _BOTH_TASKS, _fixed(_FULL), split="test"),
        Experiment(
            "table2",
            "the full model on PH2",
            "table",
            _PH2_TASKS,
            _fixed(_FULL),
            split="test",
            ph2="direct",
        ),
        Experiment(
            "table3",
            "fine-tuned on PH2, four folds",
            "table",
            _PH2_TASKS,
            _fixed(_FULL),
            split="test",
            ph2="folds",
        ),
        Experiment(
            "table4",
            "Dice loss alone and with the rank loss",
            "table",
            ("coarse.JA", "enhanced.JA"),
            _fixed(Arm("Dice loss", "enhanced", ("loss.lambda_rank=0",)), Arm("hybrid loss", "enhanced")),
            (Claim("hybrid loss", "Dice loss", "coarse.JA"), Claim("hybrid loss", "Dice loss", "enhanced.JA")),
        ),
        Experiment(
            "table5",
            "classification without and with coarse masks",
            "table",
            _AUCS,
            _fixed(_WITHOUT, _WITH),
            tuple(Claim(_WITH.label, _WITHOUT.label, measure) for measure in _AUCS),
        ),
        Experiment(
            "table6",
            "what each network brings to segmentation",
            "table",
            ("JA",),
            _fixed(
                Arm("coarse-SN", "coarse"),
                Arm("mask-CN + enhanced-SN", "enhanced", (NO_MASKS, "bootstrap.coarse_start=false")),
                Arm("all three", "enhanced"),
                # not in the paper: trained for as long as enhanced-SN, but without the map
                Arm("coarse-SN, trained on without a map", "enhanced", ("network.e_layer=none",)),
            ),
            (
                Claim("all three", "coarse-SN", "JA"),
                Claim("all three", "mask-CN + enhanced-SN", "JA"),
                Claim("all three", "coarse-SN, trained on without a map", "JA"),
            ),
            notes=(
                "Enhanced-SN starts from coarse-SN and trains on; without coarse-SN it starts from its encoder's "
                "pretrained weights and has its own epochs only.",
                "The last row is not in the paper: it trains coarse-SN on for enhanced-SN's epochs, without the map, "
                "and so tells the map's part from that of longer training.",
            ),
        ),
        Experiment(
            "table7",
            "ways for mask-CN to help segmentation",
            "table",
            ("JA",),
            _transfers,
            (Claim("MB-DCNN", "D-Net transfer", "JA"), Claim("MB-DCNN", "MDC transfer", "JA")),
        ),
        Experiment(
            "fig5",
            "coarse-SN over K and margin",
            "grid",
            ("coarse.JA",),
            _grid,
            optimum={"top_k": 30, "margin": 0.3},
        ),
        Experiment(
            "fig6", "coarse-SN over lambda", "curve", ("coarse.JA",), _lambdas, x_label="lambda", optimum={"x": 0.05}
        ),
        Experiment(
            "fig7", "activation maps without and with coarse masks", "maps", _AUCS[-1:], _fixed(_WITHOUT, _WITH)
        ),
        Experiment(
            "fig8",
            "segmentation over the number of pixel labels",
            "curve",
            ("JA",),
            _pixel_labels,
            x_label="images with a mask",
        ),
        Experiment(
            "fig9",
            "classification over the number of image labels",
            "curve",
            ("classification.mean_AUC",),
            _image_labels,
            x_label="images with a class",
        ),
    )
}
