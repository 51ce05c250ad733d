"""Scores of the exported networks on validation images."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mbdcnn import runs
from mbdcnn.cli import cli
from mbdcnn.data.index import index_folder
from mbdcnn.data.sample import write_sample
from mbdcnn.errors import UserError
from serve import _sample_parity
from serve._sample_parity import check_scores, validation_images
from serve.answers import RepositoryNetworks
from serve.export import export
from serve.verify import files_in, verify


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_sample(folder, {"training": 3, "validation": 18}, size=100)
    return folder


@pytest.fixture
def run(write_run, data, tmp_path) -> Path:
    """A run folder with the tests' networks."""
    return write_run(tmp_path / "run", data)


def test_scores_stay_when_nothing_changes(exported, data):
    scores = check_scores(exported.networks, exported.spec, exported.repository, 1, index_folder(data))
    assert scores["images"] == 18
    for name in _sample_parity.AT_MOST:
        assert 0 < scores["pytorch"][name] < 1
        assert scores["onnxruntime"][name] == pytest.approx(scores["pytorch"][name], abs=1e-3)


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        ("coarse_sn", "coarse_JA changes from"),
        ("enhanced_sn", "enhanced_JA changes from"),
        ("mask_cn", "mean_AUC changes"),
    ],
)
def test_another_network_changes_its_score(exported, data, network, sentence):
    other = copy.deepcopy(exported.networks)
    with torch.no_grad():
        if network == "mask_cn":
            other.mask_cn.classifier.weight.neg_()
        else:
            getattr(other, network).head[0].weight.neg_()
    with pytest.raises(UserError, match=f"do not say what the trained ones say:.*{sentence}"):
        check_scores(other, exported.spec, exported.repository, 1, index_folder(data))


def test_the_export_compares_on_the_runs_own_images(run, tmp_path):
    document = export(run, tmp_path / "out", instances=1)
    validation = document["parity"]["validation"]
    assert validation["images"] == 18
    assert validation["pytorch"]["enhanced_JA"] == pytest.approx(validation["onnxruntime"]["enhanced_JA"], abs=1e-3)
    card = json.loads((tmp_path / "out" / "mbdcnn" / "1" / "model_card.json").read_text())
    assert card["data"]["fingerprints"] == ["f" * 64]
    assert card["scores_when_trained"]["mask"] == {"JA": 0.5}
    assert card["code_version"] == runs.code_version()


def test_other_data_can_stand_for_the_runs_own(run, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "moved")
    (run / runs.MANIFEST).unlink()
    assert validation_images(run, None) == f"{run / runs.MANIFEST} is gone"
    manifest = validation_images(run, moved)
    assert manifest.root == moved
    assert len(manifest.select("validation")) == 18


def test_data_that_are_gone_are_named(run, data, tmp_path):
    manifest = json.loads((run / runs.MANIFEST).read_text())
    manifest["root"] = str(tmp_path / "nowhere")
    (run / runs.MANIFEST).write_text(json.dumps(manifest))
    said = validation_images(run, None)
    assert str(tmp_path / "nowhere") in said
    assert said.endswith("is gone")


def test_data_without_validation_images_are_refused_when_named(run, tmp_path):
    write_sample(tmp_path / "few", {"training": 3}, size=100)
    with pytest.raises(UserError, match=r"no images of the split 'validation'.*--data"):
        validation_images(run, tmp_path / "few")


def test_an_image_that_was_damaged_since_is_named(exported, data, tmp_path):
    moved = Path(shutil.copytree(data, tmp_path / "moved"))
    manifest = index_folder(moved)
    victim = next(p for p in files_in(moved) if "Validation_Data" in str(p) and p.suffix == ".jpg")
    victim.write_bytes(victim.read_bytes()[:500])
    with pytest.raises(UserError, match=f"{victim.name}: .*--data"):
        check_scores(exported.networks, exported.spec, exported.repository, 1, manifest)


def test_a_large_split_is_sampled_evenly(data):
    manifest = index_folder(data)
    whole = _sample_parity._sample(manifest)
    assert len(whole) == 18
    many = replace(manifest, items=manifest.select("validation") * 10)
    sample = _sample_parity._sample(many)
    assert len(sample) == _sample_parity.SAMPLE
    assert {item.image_id for item in sample} == {item.image_id for item in whole}


def test_a_repository_scores_as_its_run_does(run, data, tmp_path):
    repository = tmp_path / "out"
    export(run, repository, instances=1)
    runner = CliRunner()
    for options in (["--run", run], ["--repository", repository]):
        done = runner.invoke(cli, [str(word) for word in ("evaluate", *options, "--data", data, "--json")])
        assert done.exit_code == 0, done.output
    scored = json.loads((run / "evaluation" / "validation" / "metrics.json").read_text())
    served = json.loads((tmp_path / "out-evaluation" / "validation" / "metrics.json").read_text())
    assert served["enhanced"] == pytest.approx(scored["enhanced"], abs=1e-3)
    assert served["coarse"] == pytest.approx(scored["coarse"], abs=1e-3)
    assert served["classification"]["mean_AUC"] == pytest.approx(scored["classification"]["mean_AUC"], abs=5e-3)
    assert served["intervals"]["enhanced"]["JA"] == pytest.approx(scored["intervals"]["enhanced"]["JA"], abs=1e-3)
    for doubt in ("mask_doubt", "class_doubt"):
        assert served["trust"][doubt] == pytest.approx(scored["trust"][doubt], abs=2e-2)
    assert served["trust"]["unfamiliar"] is None
    verify(repository)  # nothing was written into it
    (repository / "coarse_sn" / "1" / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(UserError, match="not as it was exported"):
        RepositoryNetworks(repository)


@pytest.mark.parametrize("options", [[], ["--run", "a", "--repository", "b"]])
def test_what_to_score_is_one_thing(options):
    done = CliRunner().invoke(cli, ["evaluate", *options, "--data", "c"])
    assert isinstance(done.exception, UserError)
    assert "either --run" in str(done.exception)
