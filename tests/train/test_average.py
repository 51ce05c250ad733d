"""The mean of several trainings' weights, as a stage of a new run; the networks need no training for that."""

import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from mbdcnn import config as configuration
from mbdcnn import runs
from mbdcnn.cli import cli
from mbdcnn.config import override
from mbdcnn.errors import UserError
from mbdcnn.presets import smoke
from train.average import average


def made(folder, sample, seed, *settings):
    """A run with random networks of the smallest kind; the same coarse-SN whatever the seed."""
    config = override(smoke(), [f"seed={seed}", *settings])
    for stage in ("coarse", "mask"):
        torch.manual_seed(seed if stage == "mask" else 0)
        (folder / stage).mkdir(parents=True)
        configuration.save(config, folder / stage / runs.CONFIG)
        runs.save_weights(runs.NETWORKS[stage](config.network), folder / stage / "weights.safetensors")
        facts = {"pretrained": {}, "data": {}, "short_side": None, "environment": {}}
        score = "JA" if stage == "coarse" else "mean_AUC"
        scores = {"stage": stage, "score": score, "best": {score: 0.5}, "best_epoch": 2, "epochs": 3, "seconds": 60.0}
        runs.write_json(folder / stage / "metrics.json", {**scores, **facts})
    sample.save(folder / runs.MANIFEST)
    return folder


@pytest.fixture
def two(tmp_path, sample):
    return [made(tmp_path / "a", sample, 1), made(tmp_path / "b", sample, 2, "mask.learning_rate=3e-3")]


def test_the_new_run_has_the_mean_and_says_what_it_is_of(two, tmp_path):
    document = average(tmp_path / "mean", "mask", two)
    first, second, mean = (load_file(run / "mask" / "weights.safetensors") for run in (*two, tmp_path / "mean"))
    assert set(mean) == set(first)
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor.double(), (first[name].double() + second[name].double()) / 2)
    assert runs.is_finished(tmp_path / "mean", "mask")
    assert document == json.loads((tmp_path / "mean" / "mask" / "metrics.json").read_text())
    evaluated = json.loads((tmp_path / "mean" / "evaluation" / "validation-mask" / "metrics.json").read_text())
    assert document["best"] == {"mean_AUC": evaluated["classification"]["mean_AUC"]}
    assert (document["epochs"], document["seconds"]) == (6, 120.0)
    assert [source["run"] for source in document["averaged"]] == ["a", "b"]
    assert document["averaged"][0]["other_settings"] == {}
    assert document["averaged"][1]["other_settings"] == {"seed": 2, "mask.learning_rate": 3e-3}
    coarse = [(run / "coarse" / "weights.safetensors").read_bytes() for run in (two[0], tmp_path / "mean")]
    assert coarse[0] == coarse[1]
    again = average(tmp_path / "again", "mask", [tmp_path / "mean", two[1]])  # a mean may go into another
    assert again["averaged"][0]["best"] == document["best"]
    status = CliRunner().invoke(cli, ["status", str(tmp_path / "mean")])
    assert status.exit_code == 0, status.output


@pytest.mark.slow
def test_the_next_stage_is_trained_in_the_new_run(two, sample_folder, tmp_path):
    runner, run = CliRunner(), tmp_path / "mean"
    done = runner.invoke(cli, ["average", "mask", *map(str, two), "--run", str(run), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["score"] == "mean_AUC"
    words = ["train", "enhanced", "--data", sample_folder, "--run", run, "enhanced.epochs=1", "enhanced.patience=1"]
    done = runner.invoke(cli, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    networks, _ = runs.load_networks(run)
    assert networks.enhanced_sn is not None


def test_what_cannot_be_averaged(two, sample, tmp_path):
    first, second = two
    with pytest.raises(UserError, match="at least two runs"):
        average(tmp_path / "mean", "mask", [first])
    with pytest.raises(UserError, match="has a stage mask already"):
        average(first, "mask", two)
    with pytest.raises(UserError, match="no finished stage enhanced"):
        average(tmp_path / "mean", "enhanced", two)
    damaged = made(tmp_path / "damaged", sample, 3)
    (damaged / "mask" / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="not a readable weights file"):
        average(tmp_path / "other", "mask", [first, damaged])
    wider = made(tmp_path / "wider", sample, 3, "network.classification_encoder=resnet14t")
    with pytest.raises(UserError, match=r"different networks of stage mask \(network\.classification_encoder\)"):
        average(tmp_path / "mean", "mask", [first, wider])
    network = runs.load_stage(second, "coarse")
    with torch.no_grad():
        next(network.parameters()).add_(1)
    runs.save_weights(network, second / "coarse" / "weights.safetensors")
    with pytest.raises(UserError, match="learnt from another stage coarse"):
        average(tmp_path / "mean", "mask", two)
    fewer = type(sample)(sample.root, sample.items[1:])
    fewer.save(second / runs.MANIFEST)
    with pytest.raises(UserError, match="different data"):
        average(tmp_path / "mean", "mask", two)
    assert not (tmp_path / "mean").exists()
