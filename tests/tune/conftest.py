"""A small sample set for all tests of the room, and trials as a search would have left them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tuning import TINY

from mbdcnn.config import override
from mbdcnn.data.index import index_folder
from mbdcnn.data.manifest import Manifest
from mbdcnn.data.sample import write_sample
from mbdcnn.presets import preset
from tune._data import SearchData
from tune._round import FINISHED, Trial
from tune._space import LAMBDA, MARGIN_FIELD, SPACES, K, Value
from tune._work import Share, Work


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """16 training and 6 validation images of at most 160 pixels: two steps an epoch."""
    folder = tmp_path_factory.mktemp("data") / "sample"
    write_sample(folder, {"training": 16, "validation": 6}, size=160)
    return index_folder(folder)


@pytest.fixture
def work(sample: Manifest, tmp_path: Path) -> Work:
    """A search of the paper's space with networks that are trained in seconds."""
    data = SearchData(sample.root, sample.fingerprint)
    return Work(tmp_path / "out", override(preset("smoke"), TINY), data, Share(), SPACES["paper"])


@pytest.fixture
def trial() -> Callable[..., Trial]:
    """Makes what a training left."""

    def make(top_k: int, margin: float, JA: float | None, seed: int = 0, weight: float = 0.05, **rest: object) -> Trial:
        point: dict[str, Value] = {K: top_k, MARGIN_FIELD: margin, LAMBDA: weight}
        known: dict[str, object] = {"state": FINISHED, "best_epoch": 2, "epochs": 3, "seconds": 5.0, "reason": ""}
        run = f"trials/{top_k}-{margin}-{weight}-{seed}"
        return Trial(**{"round": "first", "point": point, "seed": seed, "JA": JA, "run": run, **known, **rest})  # type: ignore[arg-type]

    return make
