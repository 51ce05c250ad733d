"""Images in, a gRPC answer out: every command in turn on drawn images, and the server's answers against PyTorch's.

Once in the layout of ISIC-2017, once in the plain one with two classes of other names.
"""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mbdcnn import runs
from mbdcnn.data.index import index_folder
from mbdcnn.data.sample import write_sample
from mbdcnn.preprocessing import MASK_THRESHOLD, decode_image, prepare, restore

pytestmark = [pytest.mark.slow, pytest.mark.server]
MALIGNANT = 'malignant: α, "β"'  # sorts behind benign
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


@contextmanager
def served(run: Path, repository: Path) -> Iterator[str]:
    """The address of a server of a run's export."""
    from serve._ports import Ports
    from serve.server import TritonServer

    document = mbdcnn("export", "--run", run, "--out", repository)
    assert document
    with TritonServer(repository, Ports(0, 0, 0)) as server:
        yield server.grpc_url


@pytest.fixture(scope="module")
def url(folder: Path, run: Path) -> Iterator[str]:
    with served(run, folder / "repository") as url:
        yield url


def as_plain(sample: Path, out: Path) -> None:
    """Copy a drawn set's training images into the plain layout: melanomas are MALIGNANT, all others `benign`."""
    rows = []
    for part in ("images", "masks"):
        (out / part).mkdir(parents=True)
    for item in index_folder(sample).select("training"):
        name = f"läsion {item.image_id[-3:]}"
        shutil.copy(sample / item.image, out / "images" / f"{name}.jpg")
        shutil.copy(sample / str(item.mask), out / "masks" / f"{name}.png")
        rows.append([f"{name}.jpg", MALIGNANT if item.label == "melanoma" else "benign"])
    with (out / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "label"], *rows])


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
    assert len(images) == 9
    compare(run, images, mbdcnn("predict", *images, "--url", url, "--out", folder / "answers"))


def compare(run: Path, images: list[Path], answers: list[dict[str, Any]]) -> None:
    """A server's answers with those of the run's networks."""
    networks, config = runs.load_networks(run)
    assert len(answers) == len(images)
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


def test_the_plain_layout_with_other_classes_goes_all_the_way(tmp_path: Path) -> None:
    sample, data, run = tmp_path / "sample", tmp_path / "my lesions", tmp_path / "run"
    write_sample(sample, {"training": 33, "validation": 6}, size=120)
    as_plain(sample, data)
    classes = ["benign", MALIGNANT]

    index = mbdcnn("data", "index", data, "--out", tmp_path / "manifest.json")
    assert index["drawn_splits"] == index["images"] == 33
    assert [index["splits"][s]["classes"] for s in ("validation", "test")] == [
        dict(zip(classes, counts, strict=True)) for counts in ((3, 2), (3, 1))
    ]

    trained = mbdcnn("train", "all", "--data", data, "--run", run, "--preset", "smoke", *EPOCHS)
    assert trained["stages"]["mask"]["score"] == "mean_AUC"
    again = mbdcnn("train", "all", "--data", data, "--run", run)
    assert again == trained

    result = mbdcnn("evaluate", "--run", run, "--data", data, "--split", "validation")
    assert list(result["classification"]) == [classes[1], "mean_AUC"]
    assert result["classification"]["mean_AUC"] == result["classification"][classes[1]]["AUC"]
    assert "n_unknown_labels" not in result
    with (run / "evaluation" / "validation" / "per_image.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == set(classes)
    assert all(float(row[classes[0]]) + float(row[classes[1]]) == pytest.approx(1, abs=1e-5) for row in rows)

    foreign = mbdcnn("evaluate", "--run", run, "--data", sample, "--split", "validation")
    assert (foreign["n_masks"], foreign["n_labels"], foreign["n_unknown_labels"]) == (6, 0, 6)
    assert foreign["enhanced"]["JA"] >= 0
    assert foreign["classification"] == {classes[1]: None, "mean_AUC": None}

    images = sorted((data / "images").glob("*.jpg"))[:3]
    with served(run, tmp_path / "repository") as url:
        answers = mbdcnn("predict", *images, "--url", url, "--out", tmp_path / "answers")
    assert all(list(answer["probabilities"]) == classes and answer["label"] in classes for answer in answers)
    compare(run, images, answers)
    with (tmp_path / "answers" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == [
        "image",
        "label",
        *classes,
        "lesion_fraction",
        "mask_doubt",
        "class_doubt",
        "unfamiliarity",
        "mask",
        "cam",
        "overlay",
        "error",
    ]
    assert [float(line[MALIGNANT]) for line in table] == [answer["probabilities"][MALIGNANT] for answer in answers]
    manifest = json.loads((tmp_path / "repository" / "manifest.json").read_text())
    assert manifest["classes"] == classes
