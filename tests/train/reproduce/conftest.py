"""One folder of experiments on a small sample set, shared by all names as a user would."""

from pathlib import Path

import pytest

from mbdcnn.data.index import index_folder
from mbdcnn.data.manifest import Manifest
from mbdcnn.data.sample import write_ph2_sample, write_sample


@pytest.fixture(scope="session")
def isic(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("reproduce") / "isic"
    write_sample(folder, {"training": 24, "validation": 12, "test": 9}, size=120)
    return index_folder(folder)


@pytest.fixture(scope="session")
def ph2(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("reproduce-ph2")
    write_ph2_sample(folder, 16)
    return index_folder(folder)


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reproduce-out")
