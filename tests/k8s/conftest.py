"""The exported repository of the tests of serve/, and a pod that serves it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from exported import Exported, encode, exported, networks
from server_pods import ServerPod, start_server

__all__ = ["encode", "exported", "networks"]


@pytest.fixture(scope="session")
def models(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes volumes with the repository that was exported, as the claim `models` would be."""

    def volume(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(exported.repository, folder / "repository")
        return folder

    return volume


@pytest.fixture(scope="session")
def pod(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerPod]:
    """A pod that all tests share; those that hurt one start their own."""
    with start_server("cpu", models("shared"), tmp_path_factory.mktemp("pod") / "tmp") as pod:
        yield pod
