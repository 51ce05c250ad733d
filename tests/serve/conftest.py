"""What the tests of this room share with those of Kubernetes, and threads that leave room for the servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from exported import encode, exported, networks, one_thread, url

__all__ = ["encode", "exported", "networks", "url"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield
