"""A hundred images through gRPC, and what PyTorch says of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from mbdcnn.data.index import index_folder
from mbdcnn.data.sample import write_sample
from mbdcnn.preprocessing import decode_image, decode_mask, prepare, restore
from serve.client import OUTPUTS

pytestmark = pytest.mark.server
COUNT = 100


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("hundred")
    write_sample(folder, {"test": COUNT}, size=120)
    manifest = index_folder(folder)
    return [manifest.read(item.image) for item in manifest.select("test")]


@pytest.fixture(scope="module")
def expected(exported, files):
    images = [decode_image(data) for data in files]
    inputs = torch.from_numpy(np.stack([prepare(image, exported.spec) for image in images]))
    with torch.inference_mode():
        parts = [exported.networks(inputs[start : start + 20]) for start in range(0, COUNT, 20)]
    lesions = np.concatenate([part.lesion_probability.numpy() for part in parts])
    return {
        "PROBABILITIES": np.concatenate([part.probabilities.numpy() for part in parts]),
        "COARSE_MASK": np.concatenate([part.coarse_mask.numpy() for part in parts]),
        "CAM": np.concatenate([part.cam.numpy() for part in parts]),
        "LESION_PROBABILITY": lesions,
        "MASK_DOUBT": np.concatenate([part.mask_doubt.numpy() for part in parts]),
        "CLASS_DOUBT": np.concatenate([part.class_doubt.numpy() for part in parts]),
        "UNFAMILIARITY": np.concatenate([part.unfamiliarity.numpy() for part in parts]),
        "MASK": [restore(p[0], *i.shape[:2]) > 0.5 for p, i in zip(lesions, images, strict=True)],
    }


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


@pytest.mark.parametrize("model", ["mbdcnn", "mbdcnn_fused"])
def test_a_hundred_images_equal_pytorch(url, files, expected, model):
    """In batches of 1 to 16, several at once."""
    from tritonclient import grpc

    edges = np.cumsum([0, 1, 2, 3, 5, 7, 9, 11, 13, 15, 16, 16])
    batches = [files[a:b] for a, b in zip(edges, [*edges[1:], COUNT], strict=True) if a < b]
    assert sum(map(len, batches)) == COUNT

    with grpc.InferenceServerClient(url) as triton:

        def ask(batch: list[bytes]) -> list[np.ndarray]:
            tensor = grpc.InferInput("IMAGE", [len(batch), 1], "BYTES")
            tensor.set_data_from_numpy(np.array(batch, dtype=np.object_).reshape(-1, 1))
            answer = triton.infer(model, [tensor])
            return [answer.as_numpy(name) for name in OUTPUTS]

        with ThreadPoolExecutor(4) as pool:
            found = dict(zip(OUTPUTS, map(np.concatenate, zip(*pool.map(ask, batches), strict=True)), strict=True))

    for name in ("PROBABILITIES", "MASK_DOUBT", "CLASS_DOUBT", "UNFAMILIARITY"):
        assert np.abs(found[name] - expected[name]).max() <= 1e-3
    for name in ("CAM", "LESION_PROBABILITY"):
        assert np.abs(found[name] - expected[name]).max() <= 1e-2
    masks = [decode_mask(data) for data in found["MASK_PNG"].reshape(-1)]
    assert min(map(agreement, masks, expected["MASK"])) >= 0.995
    assert min(map(agreement, found["COARSE_MASK"] > 0, expected["COARSE_MASK"] > 0)) >= 0.995
    assert 0.05 < np.mean([mask.mean() for mask in masks]) < 0.95  # empty masks would agree too
