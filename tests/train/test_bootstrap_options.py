"""What the networks may hand to each other: folds, rounds, proxy labels, nothing, or another run's weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mbdcnn import runs
from mbdcnn.config import STAGES, Config, override
from mbdcnn.data.manifest import Item, Manifest
from mbdcnn.errors import UserError
from mbdcnn.networks import EnhancedSN
from mbdcnn.preprocessing import decode_image, prepare
from mbdcnn.presets import preset
from train.evaluate import evaluate
from train.guidance import mask_file
from train.plan import plan_run
from train.processes import run_processes
from train.stages import train_stages

TINY = [
    "preprocessing.image_size=64",
    "network.decoder_channels=16",
    *(f"{stage}.batch_size=4" for stage in STAGES),
    *(f"{stage}.epochs=1" for stage in STAGES),
]


def train(manifest: Manifest, run: Path, *settings: str, stages: tuple[str, ...] = STAGES) -> Config:
    config = override(preset("smoke"), [*TINY, *settings])
    run_processes(train_stages, 1, plan_run(run, stages, config, manifest), stages)
    return config


def pixels(manifest: Manifest, item: Item, config: Config) -> torch.Tensor:
    return torch.from_numpy(prepare(decode_image(manifest.read(item.image)), config.preprocessing))[None]


def agreement(file: Path, probability: torch.Tensor) -> float:
    """Share of a stored mask's pixels that a network's answer explains."""
    return float(np.mean((np.asarray(Image.open(file)) > 127) == (probability[0, 0].numpy() > 0.5)))


@pytest.mark.slow
def test_with_folds_no_image_is_segmented_by_a_network_that_saw_it(sample: Manifest, tmp_path: Path) -> None:
    stages = ("coarse", "mask")
    config = train(sample, tmp_path, "bootstrap.coarse_folds=3", stages=stages)
    folder = tmp_path / "coarse" / "masks-3-folds"
    training = sample.select("training")
    held_out: list[str] = []
    for number in (1, 2, 3):
        fold = folder / f"fold-{number}"
        seen = {item.image_id for item in Manifest.load(fold / runs.MANIFEST).select("training")}
        unseen = [item for item in training if item.image_id not in seen]
        held_out += [item.image_id for item in unseen]
        network = runs.load_stage(fold, "coarse")
        with torch.no_grad():
            answers = [network(pixels(sample, item, config)) for item in unseen]
        # DALI's and Pillow's pixels differ by a level or two, so a pixel at the cut may fall either way
        assert np.mean([agreement(mask_file(folder, i), a) for i, a in zip(unseen, answers, strict=True)]) > 0.97
    assert sorted(held_out) == sorted(item.image_id for item in training)
    assert len(list(folder.rglob("validation/*.png"))) == 9
    before = (folder / "fold-1" / "coarse" / runs.WEIGHTS).stat().st_mtime_ns
    train(sample, tmp_path, "bootstrap.coarse_folds=3", stages=stages)
    assert (folder / "fold-1" / "coarse" / runs.WEIGHTS).stat().st_mtime_ns == before


@pytest.mark.slow
def test_computed_coarse_masks_train_as_stored_ones_do(sample: Manifest, tmp_path: Path) -> None:
    curves = []
    for way in ("stored", "computed"):
        run = tmp_path / way
        train(sample, run, f"bootstrap.coarse_masks={way}", "precision=float32")
        assert (run / "coarse" / "masks").is_dir() == (way == "stored")
        rows = [json.loads(line) for stage in STAGES for line in (run / stage / runs.LOG).read_text().splitlines()]
        curves.append([row["loss"] for row in rows])
    # a pixel whose probability is 0.5 to the last digit may fall either way in another batch
    np.testing.assert_allclose(curves[1], curves[0], rtol=2e-3)


@pytest.mark.slow
def test_a_second_round_is_guided_by_the_first_ones_enhanced_masks(sample: Manifest, tmp_path: Path) -> None:
    config = train(sample, tmp_path, "bootstrap.rounds=2")
    first, _ = runs.load_finished(tmp_path, rounds=1)
    both, _ = runs.load_finished(tmp_path)
    assert (len(first.further_rounds), len(both.further_rounds)) == (0, 1)
    items = sample.select("training")[:6]
    with torch.no_grad():
        said = [first(pixels(sample, item, config)) for item in items]
        after = [both(pixels(sample, item, config)) for item in items]
    guides = [mask_file(tmp_path / "enhanced" / "masks", item) for item in items]
    assert np.mean([agreement(g, s.lesion_probability) for g, s in zip(guides, said, strict=True)]) > 0.97
    for one, two in zip(said, after, strict=True):
        torch.testing.assert_close(one.coarse_probability, two.coarse_probability)
        assert not torch.equal(one.lesion_probability, two.lesion_probability)
    result = evaluate(both, sample, "validation", tmp_path / "evaluation", config.preprocessing)
    assert result["enhanced"] is not None


@pytest.mark.slow
def test_images_without_a_mask_join_by_proxy_labels(sample: Manifest, tmp_path: Path) -> None:
    settings = ["supervision.pixel_labels=10", "network.e_layer=none", "bootstrap.proxy_labels=true"]
    train(sample, tmp_path, *settings)
    used = Manifest.load(tmp_path / runs.MANIFEST)
    bare = [item for item in used.select("training") if item.mask is None]
    assert len(bare) == 14
    proxies = {file: np.asarray(Image.open(file)) for file in (tmp_path / "mask" / "proxies").rglob("*.png")}
    assert set(proxies) == {mask_file(tmp_path / "mask" / "proxies", item) for item in bare}
    assert {tuple(np.unique(mask)) for mask in proxies.values()} <= {(0,), (0, 255), (255,)}
    assert any(mask.any() for mask in proxies.values())
    steps = [json.loads(line) for line in (tmp_path / "enhanced" / runs.LOG).read_text().splitlines()]
    assert sum("step" in row for row in steps) == 24 // 4  # all images, in batches of 4
    coarse = [json.loads(line) for line in (tmp_path / "coarse" / runs.LOG).read_text().splitlines()]
    assert sum("step" in row for row in coarse) == 3  # 10 images in batches of at most 4


@pytest.mark.slow
def test_a_run_can_do_without_coarse_sn(sample: Manifest, tmp_path: Path) -> None:
    settings = ["network.mask_channel=false", "bootstrap.coarse_start=false"]
    config = train(sample, tmp_path, *settings, stages=("mask", "enhanced"))
    assert not (tmp_path / "coarse").exists()
    networks, _ = runs.load_finished(tmp_path)
    assert networks.coarse_sn is None
    result = evaluate(networks, sample, "validation", tmp_path / "evaluation", config.preprocessing)
    assert result["coarse"] is None
    assert result["enhanced"]["JA"] > 0
    with pytest.raises(UserError, match="no finished stage coarse"):
        runs.load_networks(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["aspp", "decoder"])
def test_the_map_may_enter_elsewhere(sample: Manifest, tmp_path: Path, place: str) -> None:
    train(sample, tmp_path, f"network.e_layer={place}")
    network = runs.load_stage(tmp_path, "enhanced")
    assert isinstance(network, EnhancedSN)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        low, high = (network(images, torch.full((1, 1, 4, 4), level)) for level in (0.0, 1.0))
    assert not torch.equal(low, high)


@pytest.mark.slow
def test_a_run_may_start_from_another_ones_networks(sample: Manifest, tmp_path: Path) -> None:
    train(sample, tmp_path / "first")
    train(sample, tmp_path / "second", f"bootstrap.start_run={tmp_path / 'first'}", "coarse.learning_rate=1e-9")
    first, second = (runs.load_stage(tmp_path / name, "coarse").state_dict() for name in ("first", "second"))
    weights = [name for name in first if name.endswith("weight")]
    for name in weights:
        torch.testing.assert_close(first[name], second[name], atol=1e-6, rtol=0)
    for stage in STAGES:
        started = json.loads((tmp_path / "second" / stage / runs.METRICS).read_text())["initial_tensors"]
        assert started["new"] == 0


def test_an_absent_run_to_start_from_is_named(sample: Manifest, tmp_path: Path) -> None:
    config = override(preset("smoke"), [*TINY, f"bootstrap.start_run={tmp_path / 'absent'}"])
    with pytest.raises(UserError, match=r"no run folder .*absent"):
        plan_run(tmp_path / "run", STAGES, config, sample)


def test_more_labels_than_there_are_is_refused(sample: Manifest, tmp_path: Path) -> None:
    config = override(preset("smoke"), [*TINY, "supervision.pixel_labels=25"])
    with pytest.raises(UserError, match=r"supervision\.pixel_labels"):
        plan_run(tmp_path / "run", STAGES, config, sample)


def test_a_stage_that_needs_another_says_which(sample: Manifest, tmp_path: Path) -> None:
    tmp_path.joinpath("run").mkdir()
    config = override(preset("smoke"), TINY)
    with pytest.raises(UserError, match="no finished stage coarse"):
        plan_run(tmp_path / "run", ("mask",), config, sample)
