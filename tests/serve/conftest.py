"""The tests' export, its server, a run folder of its networks, and one thread for PyTorch's side of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from exported import encode, exported, networks, one_thread, url

from mbdcnn import config as configuration
from mbdcnn import runs
from mbdcnn.data.index import index_folder
from mbdcnn.networks import MutualBootstrap
from mbdcnn.presets import smoke

__all__ = ["encode", "exported", "networks", "url"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def write_run(networks: MutualBootstrap) -> Callable[[Path, Path], Path]:
    """Make a run folder of these networks, as if a data folder had trained them."""

    def write_run(folder: Path, data: Path) -> Path:
        config = smoke()
        for stage in runs.NETWORKS:
            network = getattr(networks, f"{stage}_{'cn' if stage == 'mask' else 'sn'}")
            (folder / stage).mkdir(parents=True)
            configuration.save(config, folder / stage / runs.CONFIG)
            runs.save_weights(network, folder / stage / runs.WEIGHTS)
            metrics = {"score": "JA", "best": {"JA": 0.5}, "data": {"name": "data", "fingerprint": "f" * 64}}
            runs.write_json(folder / stage / runs.METRICS, metrics)
        index_folder(data).save(folder / runs.MANIFEST)
        return folder

    return write_run
