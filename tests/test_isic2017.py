"""The real ISIC-2017 images, where they are at hand: MBDCNN_ISIC2017 names their folder."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mbdcnn.data.index import index_folder, summarise
from mbdcnn.data.manifest import Manifest
from mbdcnn.preprocessing import Preprocessing, decode_image, decode_mask, prepare
from serve.answers import RepositoryNetworks
from serve.released import RELEASED
from train.evaluate import evaluate
from train.pipeline import Loader, Sample
from train.sampling import EvaluationOrder

MEASURED = Path(__file__).parents[1] / "benchmarks" / "results" / "isic2017-release" / "metrics.json"
FOLDER = Path(os.environ.get("MBDCNN_ISIC2017", Path(__file__).parents[2] / "shared" / "data" / "isic2017"))
pytestmark = [
    pytest.mark.isic,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="no ISIC-2017 images; set MBDCNN_ISIC2017 to their folder"),
]


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return index_folder(FOLDER)


def test_every_image_mask_and_label_is_found(manifest: Manifest) -> None:
    summary = summarise(manifest)
    assert manifest.faults == ()
    training, validation = summary["splits"]["training"], summary["splits"]["validation"]
    assert (training["images"], training["masks"], training["labels"]) == (2000, 2000, 2000)
    assert (validation["images"], validation["masks"], validation["labels"]) == (150, 150, 150)
    assert training["classes"] == {"nevus": 1372, "melanoma": 374, "seborrheic_keratosis": 254}
    assert validation["classes"] == {"nevus": 78, "melanoma": 30, "seborrheic_keratosis": 42}


@pytest.mark.slow
def test_the_released_networks_score_what_their_card_says(manifest: Manifest, tmp_path: Path) -> None:
    filed = json.loads(MEASURED.read_text())
    networks = RepositoryNetworks(RELEASED)
    found = evaluate(networks, manifest, "validation", tmp_path, networks.preprocessing, classes=networks.classes)
    for mask in ("coarse", "enhanced"):
        assert found[mask] == pytest.approx(filed[mask], abs=1e-3)
    assert found["classification"]["mean_AUC"] == pytest.approx(filed["classification"]["mean_AUC"], abs=2e-3)
    assert found["trust"]["calibration"] == pytest.approx(filed["trust"]["calibration"], abs=5e-3)


def test_dali_and_the_server_see_the_same_pixels(manifest: Manifest) -> None:
    items = manifest.select("validation")[:32]
    rows = [Sample(manifest.root / i.image, (manifest.root / (i.mask or ""),)) for i in items]
    spec = Preprocessing(224)
    (batch,) = Loader(rows, ["truth"], EvaluationOrder(32, 32), spec, None, 0, torch.device("cpu")).epoch(0)
    expected = np.stack([prepare(decode_image(manifest.read(i.image)), spec) for i in items])
    levels = np.abs(batch.images.numpy() - expected) * 127.5
    assert levels.max() <= 3
    assert levels.mean() < 0.5
    for item, plane in zip(items, batch.planes["truth"], strict=True):
        truth = decode_mask(manifest.read(item.mask or ""))
        assert abs(plane.mean().item() - truth.mean()) < 0.01
