"""Every experiment of the paper through the command, at the smallest budget."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mbdcnn.cli import cli
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError
from train.reproduce.catalog import EXPERIMENTS

TINY = [
    "preprocessing.image_size=64",
    "network.decoder_channels=16",
    *(f"{stage}.batch_size=2" for stage in ("coarse", "mask", "enhanced")),
]
pytestmark = pytest.mark.slow


def reproduce(name: str, isic: Manifest, out: Path, *words: str) -> Result:
    arguments = ["reproduce", name, "--data", str(isic.root), "--out", str(out), "--preset", "smoke"]
    return CliRunner().invoke(cli, [*arguments, "--budget", "0.01", *words, *TINY])


def stage_folders(out: Path) -> set[str]:
    return {folder.name for folder in (out / "stages").iterdir()}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_ends_in_a_document_a_page_and_a_picture(
    name: str, isic: Manifest, ph2: Manifest, out: Path
) -> None:
    words = ["--ph2", str(ph2.root)] if EXPERIMENTS[name].ph2 else []
    done = reproduce(name, isic, out, "--json", *words)
    assert done.exception is None, done.output
    document: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    assert json.loads(done.stdout) == document
    assert document["rows"]
    for row in document["rows"]:
        for measure in document["measures"]:
            value = row["mean"][measure]
            assert value is not None, (row["label"], measure)
            assert 0 <= value <= 1, (row["label"], measure)
        assert all((out / run).is_dir() for run in row["run"])
    claims = EXPERIMENTS[name].claims
    assert len(document["findings"]) == len(claims)
    page = (out / f"{name}.md").read_text()
    assert f"{name}.png" in page
    assert all(row["label"] in page for row in document["rows"]) or document["kind"] in ("grid", "curve")
    for run in (out / "runs").iterdir():
        fingerprint = json.loads((run / "fingerprint.json").read_text())
        assert fingerprint["leakage"] == []
    with Image.open(out / f"{name}.png") as picture:
        assert min(picture.size) > 200


def test_what_is_trained_already_is_not_trained_again(isic: Manifest, out: Path) -> None:
    reproduce("table4", isic, out)
    before = {f: f.stat().st_mtime_ns for f in out.glob("stages/*/weights.safetensors")}
    assert reproduce("table4", isic, out).exception is None
    # table 6 shares all but its two arms without coarse-SN, and without the map
    reproduce("table6", isic, out)
    after = {f: f.stat().st_mtime_ns for f in out.glob("stages/*/weights.safetensors")}
    assert before == {f: t for f, t in after.items() if f in before}


def test_seeds_repeat_everything(isic: Manifest, out: Path) -> None:
    done = reproduce("table5", isic, out, "--seeds", "2")
    assert done.exception is None, done.output
    document = json.loads((out / "table5.json").read_text())
    assert document["seeds"] == [0, 1]
    for row in document["rows"]:
        values = row["values"]["classification.mean_AUC"]
        assert len(values) == 2
        assert row["std"]["classification.mean_AUC"] is not None
    assert "--seeds 2" in document["command"]


@pytest.mark.parametrize(
    ("name", "words", "sentence"),
    [
        ("tabel4", [], "did you mean table4"),
        ("table2", [], "table2 needs PH2; name its folder with --ph2"),
        ("table4", ["--budget", "0"], "--budget is 0"),
        ("table4", ["--budget", "1.5"], "--budget is 1.5"),
        ("table4", ["--seeds", "0"], "--seeds is 0"),
        ("table4", ["--data", "absent"], "absent does not exist"),
        ("table4", ["losss.top_k=3"], "did you mean loss.top_k"),
    ],
)
def test_bad_requests_are_one_sentence(name: str, words: list[str], sentence: str, isic: Manifest, out: Path) -> None:
    done = reproduce(name, isic, out, *words)
    assert isinstance(done.exception, UserError)
    assert sentence in str(done.exception)


def test_two_at_a_time_do_not_train_into_each_other(isic: Manifest, tmp_path: Path) -> None:
    from mbdcnn.files import locked

    with locked(tmp_path):
        done = reproduce("table4", isic, tmp_path)
    assert "Another process is at work" in str(done.exception)
