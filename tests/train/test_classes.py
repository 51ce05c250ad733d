"""Runs whose classes are not the challenge's: where the names come from, and what is refused before training."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mbdcnn import config as configuration
from mbdcnn import runs
from mbdcnn.classes import CLASSES
from mbdcnn.config import STAGES, Config, override
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError
from mbdcnn.networks import MaskCN
from mbdcnn.presets import preset
from train.plan import Plan, plan_run
from train.processes import run_processes
from train.reproduce.catalog import find
from train.reproduce.runner import Scale, reproduce
from train.stages import train_stages

TINY = ["preprocessing.image_size=64", *(f"{s}.batch_size=4" for s in STAGES), *(f"{s}.epochs=1" for s in STAGES)]
TWO = ("benign", "malignant")


@pytest.fixture
def two(sample: Manifest) -> Manifest:
    """The sample set with melanomas called malignant and all others benign."""
    items = (replace(item, label=TWO[item.label == "melanoma"]) for item in sample.items)
    return replace(sample, items=tuple(items), classes=TWO)


def settings(*assignments: str) -> Config:
    return override(preset("smoke"), [*TINY, *assignments])


def plan(manifest: Manifest, run: Path, *assignments: str, stages: tuple[str, ...] = STAGES) -> Plan:
    return plan_run(run, stages, settings(*assignments), manifest)


def begin(run: Path, classes: tuple[str, ...], stage: str = "mask") -> Path:
    """What a stage that has begun leaves."""
    config = settings()
    (run / stage).mkdir(parents=True)
    configuration.save(replace(config, network=replace(config.network, classes=classes)), run / stage / runs.CONFIG)
    return run


def test_a_run_takes_the_classes_of_its_data(sample: Manifest, two: Manifest, tmp_path: Path) -> None:
    assert plan(sample, tmp_path).config == settings()
    planned = plan(two, tmp_path)
    assert planned.config.network.classes == TWO
    assert {item.label: planned.class_index(item) for item in two.items} == {"benign": 0, "malignant": 1}
    assert planned.class_index(replace(two.items[0], label=None)) == -1


def test_an_order_of_classes_can_be_given(two: Manifest, tmp_path: Path) -> None:
    planned = plan(two, tmp_path, "network.classes=[malignant,benign]")
    assert planned.config.network.classes == ("malignant", "benign")
    assert {item.label: planned.class_index(item) for item in two.items} == {"malignant": 0, "benign": 1}


def test_given_classes_must_include_the_datas(two: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"are malignant, odd, but .* has benign, malignant; .*network\.classes"):
        plan(two, tmp_path, "network.classes=[malignant,odd]")


@pytest.mark.parametrize("stage", ["mask", "enhanced"])
def test_a_run_begun_with_other_classes_names_both(sample: Manifest, two: Manifest, tmp_path: Path, stage: str) -> None:
    run = begin(tmp_path / "run", CLASSES, stage)
    with pytest.raises(UserError, match="nevus, melanoma, seborrheic_keratosis; now the classes are benign, malignant"):
        plan(two, run, stages=("coarse", stage))
    other = begin(tmp_path / "other", TWO, stage)
    with pytest.raises(UserError, match=f"{other}.*benign, malignant; now the classes are nevus, melanoma, seb"):
        plan(sample, other, stages=("coarse", stage))
    with pytest.raises(UserError, match=f"{other} are benign, malignant, but .* has nevus, melanoma, seb"):
        plan_run(other, (stage,), configuration.load(other / stage / runs.CONFIG), sample)


def test_coarse_sn_does_not_care_for_classes(sample: Manifest, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", TWO, "coarse")
    assert plan(sample, run, stages=("coarse",)).config.network.classes == CLASSES


def test_a_run_to_start_from_must_know_the_classes(sample: Manifest, two: Manifest, tmp_path: Path) -> None:
    start = begin(tmp_path / "start", TWO)
    with pytest.raises(UserError, match=f"{start} tells apart benign, malignant, but .* has nevus, melanoma, seb"):
        plan(sample, tmp_path / "run", f"bootstrap.start_run={start}")
    with pytest.raises(UserError, match="start has no finished stage coarse"):  # the classes are no obstacle
        plan(sample, tmp_path / "run", f"bootstrap.start_run={start}", stages=("coarse",))
    assert not (tmp_path / "run").exists()


def test_a_network_of_more_classes_is_trained_on_as_it_is(sample: Manifest, tmp_path: Path) -> None:
    start = begin(tmp_path / "start", ("a", *CLASSES))
    run_without_stages: tuple[str, ...] = ()
    planned = plan(sample, tmp_path / "run", f"bootstrap.start_run={start}", stages=run_without_stages)
    assert planned.config.network.classes == ("a", *CLASSES)
    assert planned.class_index(next(item for item in sample.items if item.label == "nevus")) == 1


def test_mask_cn_needs_two_classes(two: Manifest, tmp_path: Path) -> None:
    alike = replace(two, items=tuple(replace(item, label="benign") for item in two.items), classes=("benign",))
    with pytest.raises(UserError, match="training images of the class benign alone; stage mask needs some of another"):
        plan(alike, tmp_path)
    assert plan(alike, tmp_path, stages=("coarse",))


@pytest.mark.slow
def test_mask_cn_learns_two_classes_and_starts_another_run(two: Manifest, tmp_path: Path) -> None:
    kept = tuple(i for i in two.items if i.split == "training" or i.label == "benign")
    words = ("network.mask_channel=false", "network.decoder_channels=16")
    first = plan(replace(two, items=kept), tmp_path / "a", *words, stages=("mask",))
    run_processes(train_stages, 1, first, ("mask",))
    network = runs.load_stage(tmp_path / "a", "mask")
    assert isinstance(network, MaskCN)
    assert (network.classes, network.classifier.out_features) == (TWO, 2)
    metrics = json.loads((tmp_path / "a" / "mask" / runs.METRICS).read_text())
    assert metrics["score"] == "AC"  # without a malignant validation image there is no AUC
    second = plan(two, tmp_path / "b", *words, f"bootstrap.start_run={tmp_path / 'a'}", stages=("mask",))
    run_processes(train_stages, 1, second, ("mask",))
    metrics = json.loads((tmp_path / "b" / "mask" / runs.METRICS).read_text())
    assert metrics["score"] == "mean_AUC"
    assert metrics["initial_tensors"]["loaded"] > 0


def test_reproduce_wants_the_papers_classes(sample: Manifest, two: Manifest, tmp_path: Path) -> None:
    sentence = (
        "has the classes benign, malignant, but the paper's figures are for nevus, melanoma, seborrheic_keratosis"
    )
    with pytest.raises(UserError, match=sentence):
        reproduce(find("table5"), settings(), two, None, tmp_path, Scale())
    with pytest.raises(UserError, match=sentence):
        reproduce(find("table2"), settings(), sample, two, tmp_path, Scale())
    assert list(tmp_path.iterdir()) == []
