"""A small sample set, indexed once for all tests of the room."""

from pathlib import Path

import pytest

from mbdcnn.data.index import index_folder
from mbdcnn.data.manifest import Manifest
from mbdcnn.data.sample import write_sample


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """24 training and 9 validation images of at most 160 pixels."""
    folder = tmp_path_factory.mktemp("data") / "sample"
    write_sample(folder, {"training": 24, "validation": 9}, size=160)
    return index_folder(folder)


@pytest.fixture(scope="session")
def sample_folder(sample: Manifest) -> Path:
    return sample.root
