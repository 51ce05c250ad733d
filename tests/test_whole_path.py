"""Images in, a gRPC answer out: every command in turn on drawn images, and the server's answers against PyTorch's."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mbdcnn import runs
from mbdcnn.preprocessing import MASK_THRESHOLD, decode_image, prepare, restore

pytestmark = [pytest.mark.slow, pytest.mark.server]
EPOCHS = ("coarse.epochs=1", "mask.epochs=1", "enhanced.epochs=1")


def mbdcnn(*words: str | Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "mbdcnn", *map(str, words), "--json"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("path")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    mbdcnn("data", "sample", folder / "data", "--training", "48", "--validation", "12", "--test", "9")
    words = ("--data", folder / "data", "--run", folder / "run", "--preset", "smoke")
    trained = mbdcnn("train", "all", *words, *EPOCHS)
    assert list(trained["stages"]) == ["coarse", "mask", "enhanced"]
    return folder / "run"


@pytest.fixture(scope="module")
def url(folder: Path, run: Path) -> Iterator[str]:
    from serve._triton import Ports
    from serve.server import TritonServer

    document = mbdcnn("export", "--run", run, "--out", folder / "repository")
    assert document
    with TritonServer(folder / "repository", Ports(0, 0, 0)) as server:
        yield server.grpc_url


def test_evaluation_follows_the_contract(folder: Path, run: Path) -> None:
    result = mbdcnn("evaluate", "--run", run, "--data", folder / "data", "--split", "validation")
    assert result["split"] == "validation"
    assert result["n_images"] == 12
    for network in ("coarse", "enhanced"):
        assert set(result[network]) == {"JA", "DI", "AC", "SE", "SP"}
        assert all(0 <= v <= 1 for v in result[network].values())
    assert set(result["classification"]) == {"melanoma", "seborrheic_keratosis", "mean_AUC"}
    out = run / "evaluation" / "validation"
    assert len((out / "per_image.csv").read_text().splitlines()) == 13
    assert "<svg" in (out / "report.html").read_text()


def test_the_fingerprint_of_the_data_goes_with_run_and_repository(folder: Path, run: Path, url: str) -> None:
    fingerprint = json.loads((run / "fingerprint.json").read_text())
    assert [held["images"] for held in fingerprint["splits"].values()] == [48, 12, 9]
    assert json.loads((folder / "repository" / "fingerprint.json").read_text()) == fingerprint


def test_the_server_answers_as_pytorch_does(folder: Path, run: Path, url: str) -> None:
    images = sorted((folder / "data" / "ISIC-2017_Test_v2_Data").glob("*.jpg"))
    answers = mbdcnn("predict", *images, "--url", url, "--out", folder / "answers")
    networks, config = runs.load_networks(run)
    assert len(answers) == len(images) == 9
    for path, answer in zip(images, answers, strict=True):
        image = decode_image(path.read_bytes())
        with torch.no_grad():
            expected = networks(torch.from_numpy(prepare(image, config.preprocessing))[None])
        np.testing.assert_allclose(list(answer["probabilities"].values()), expected.probabilities[0].numpy(), atol=1e-3)
        with Image.open(answer["mask"]) as picture:
            mask = np.asarray(picture) > 0
        assert mask.shape == image.shape[:2]
        truth = restore(expected.lesion_probability[0, 0].numpy(), *mask.shape) > MASK_THRESHOLD
        either = (mask | truth).sum()
        assert either == 0 or (mask & truth).sum() / either >= 0.995
        with Image.open(answer["overlay"]) as picture:
            assert np.asarray(picture.convert("RGB")).std() > 0


def test_a_text_file_called_jpg_is_refused_and_the_others_answered(folder: Path, url: str, tmp_path: Path) -> None:
    good = next((folder / "data" / "ISIC-2017_Test_v2_Data").glob("*.jpg"))
    bad = tmp_path / "text.jpg"
    bad.write_text("this is not a picture")
    words = ["predict", str(bad), str(good), "--url", url, "--json"]
    done = subprocess.run([sys.executable, "-m", "mbdcnn", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    refused, answered = json.loads(done.stdout)
    assert "text.jpg" in refused["error"]
    assert "not a readable JPEG, PNG or BMP image" in refused["error"]
    assert answered["label"]
