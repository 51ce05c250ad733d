"""An export of the smallest networks, with random weights that still give mixed masks, and a server of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mbdcnn.data.sample import draw
from mbdcnn.networks import CoarseSN, EnhancedSN, MaskCN, MutualBootstrap, Prediction
from mbdcnn.preprocessing import Preprocessing, prepare
from mbdcnn.presets import smoke


@dataclass(frozen=True)
class Exported:
    networks: MutualBootstrap
    spec: Preprocessing
    repository: Path
    manifest: dict

    def expect(self, image: np.ndarray) -> Prediction:
        """What PyTorch says of an image."""
        with one_thread(), torch.inference_mode():
            return self.networks(torch.from_numpy(prepare(image, self.spec))[None])


@contextmanager
def one_thread() -> Iterator[None]:
    """On shared cores, threads that spin while they wait for each other cost small networks most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _settle(networks: MutualBootstrap, spec: Preprocessing) -> None:
    """Give random networks the batch statistics of real pictures, and masks that are neither empty nor full."""
    images = torch.from_numpy(np.stack([prepare(draw("training", i)[0], spec) for i in range(4)]))
    with torch.no_grad():
        for _ in range(10):
            networks.train()(images)
    networks.eval()
    _centre(networks.coarse_sn, images)
    with torch.no_grad():
        cam = networks(images).cam
    _centre(networks.enhanced_sn, images, cam)


def _centre(network: torch.nn.Module, images: torch.Tensor, *cam: torch.Tensor) -> None:
    """Shift a segmentation network's last layer so that half of the pixels are lesion, clearly."""
    with torch.no_grad():
        p = network(images, *cam).clamp(1e-6, 1 - 1e-6)
        logits = torch.log(p / (1 - p))
        scale = 3 / logits.std()
        network.head[0].weight *= scale
        network.head[0].bias.copy_((network.head[0].bias - logits.median()) * scale)


@pytest.fixture(scope="session")
def networks() -> MutualBootstrap:
    torch.manual_seed(0)
    config = smoke()
    made = MutualBootstrap(CoarseSN(config.network), MaskCN(config.network), EnhancedSN(config.network))
    with one_thread():
        _settle(made, config.preprocessing)
    return made


@pytest.fixture(scope="session")
def exported(networks: MutualBootstrap, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    from serve.export import export_networks

    folder = tmp_path_factory.mktemp("export")
    repository = folder / "repository"
    (folder / "fingerprint.json").write_text('{"name": "none"}')
    spec = smoke().preprocessing
    with one_thread():
        manifest = export_networks(
            networks, spec, repository, {"run": "untrained"}, instances=2, fingerprint=folder / "fingerprint.json"
        )
    return Exported(networks, spec, repository, manifest)


@pytest.fixture(scope="session")
def url(exported: Exported) -> Iterator[str]:
    """Address of a server that all tests share; tests that hurt a server start their own.

    Its supervisor does not ask it anything, so that its statistics count the tests' requests alone.
    """
    from serve.server import TritonServer

    with TritonServer(exported.repository, probe_interval=3600) as server:
        yield server.grpc_url


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    def encode(image: np.ndarray, kind: str = "PNG") -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind)
        return buffer.getvalue()

    return encode
