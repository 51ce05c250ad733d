"""Calibration of a run whose networks need no training: what it writes, and who uses it."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from mbdcnn import calibration, runs
from mbdcnn import config as configuration
from mbdcnn.cli import cli
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError
from mbdcnn.presets import smoke
from train.calibrate import PAGE, calibrate, fit_familiarity


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run folder with random networks of the smallest kind, whose logits are far too large."""
    folder, config = tmp_path_factory.mktemp("runs") / "run", smoke()
    torch.manual_seed(0)
    for stage, build in runs.NETWORKS.items():
        network = build(config.network)
        if stage == "mask":
            with torch.no_grad():
                network.classifier.weight *= 20
        (folder / stage).mkdir(parents=True)
        configuration.save(config, folder / stage / runs.CONFIG)
        runs.save_weights(network, folder / stage / "weights.safetensors")
        runs.write_json(folder / stage / "metrics.json", {"score": "JA", "best": {"JA": 0.5}})
    return folder


@pytest.fixture(scope="module")
def found(made, sample):
    return calibrate(made, sample)


def test_the_document_says_what_was_found(made, sample, found):
    assert json.loads((made / calibration.CALIBRATION).read_text()) == found
    assert found["temperature"] > 1
    assert found["calibration"]["images"] == len(sample.select("validation"))
    assert found["calibration"]["after"]["NLL"] < found["calibration"]["before"]["NLL"]
    assert sum(bin_["images"] for bin_ in found["calibration"]["reliability"]["after"]) == 9
    assert found["doubt"]["mask"]["images"] == 9
    assert set(found["doubt"]["mask"]["measures"]) == {"expected_JA", "disagreement"}
    assert found["familiarity"]["training_images"] == 24
    assert found["familiarity"]["foreign"]["all"]["images"] == 60
    page = (made / PAGE).read_text()
    assert page.count("data:image/svg+xml") == 4
    assert "document" in page


def test_the_runs_networks_are_calibrated_from_then_on(made, found):
    networks, config = runs.load_networks(made)
    plain, _ = runs.load_networks(made, calibrated=False)
    images = torch.randn(2, 3, config.preprocessing.image_size, config.preprocessing.image_size)
    with torch.inference_mode():
        said, trained = networks(images), plain(images)
    assert torch.equal(said.logits, trained.logits)
    assert torch.equal(said.cam, trained.cam)
    assert torch.allclose(said.probabilities, (trained.logits / found["temperature"]).softmax(1))
    assert (said.unfamiliarity >= 0).all()
    assert (trained.unfamiliarity == -1).all()


def test_other_weights_need_another_calibration(made, found, tmp_path):
    copy = tmp_path / "copy"
    for file in [p for p in made.rglob("*") if p.is_file()]:
        target = copy / file.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    runs.load_networks(copy)
    (copy / "calibration.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"calibration\.safetensors is missing or damaged"):
        runs.load_networks(copy)
    weights = copy / "mask" / "weights.safetensors"
    network = runs.load_stage(copy, "mask")
    with torch.no_grad():
        network.classifier.bias += 1
    runs.save_weights(network, weights)
    with pytest.raises(UserError, match="made for other weights"):
        runs.load_networks(copy)
    (copy / calibration.CALIBRATION).write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        runs.load_networks(copy)


def test_a_familiar_limit_keeps_95_percent_of_the_validation_images():
    rng = np.random.default_rng(0)
    training, validation = (rng.normal(size=(n, 40)).astype(np.float32) for n in (500, 200))
    familiarity = fit_familiarity(training, validation)
    scores = familiarity(torch.from_numpy(validation)).numpy()
    assert np.mean(scores <= 1) == pytest.approx(0.95, abs=0.01)
    assert (familiarity(torch.from_numpy(validation + 5)).numpy() > 1).all()


def test_too_few_labels_are_one_sentence(made, sample):
    kept = tuple(i for i in sample.items if i.split == "training" or i.label == "nevus")
    with pytest.raises(UserError, match="too few labelled validation images"):
        calibrate(made, Manifest(sample.root, kept))


def test_a_run_that_was_calibrated_with_views_answers_so(made, found, sample):
    plain, config = runs.load_networks(made)
    images = torch.randn(2, 3, config.preprocessing.image_size, config.preprocessing.image_size)
    try:
        assert calibrate(made, sample, views=2)["views"] == 2
        networks, _ = runs.load_networks(made)
    finally:
        calibrate(made, sample)  # as the other tests find it
    assert found["views"] == 1
    with torch.inference_mode():
        said, turned = (networks(x).coarse_probability for x in (images, images.flip(-1, -2)))
        assert not torch.allclose(plain(images).coarse_probability, said, atol=1e-4)
    assert torch.allclose(said, turned.flip(-1, -2), atol=1e-5)


def test_the_command_takes_foreign_pictures(made, sample_folder, tmp_path):
    Image.fromarray(np.zeros((50, 70, 3), np.uint8)).save(tmp_path / "black.png")
    words = ["calibrate", "--run", made, "--data", sample_folder, "--foreign", tmp_path, "--json"]
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["familiarity"]["foreign"]["named"]["images"] == 1
    (tmp_path / "letter.jpg").write_text("Dear colleague, ...")
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert isinstance(done.exception, UserError)
    assert "letter.jpg" in str(done.exception)
