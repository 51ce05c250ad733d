"""The data set is looked at and reduced once on a machine, however many trials ask for it at the same time."""

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest

from mbdcnn.config import Config, override
from mbdcnn.data.manifest import Manifest
from mbdcnn.data.prepared import prepare
from mbdcnn.errors import UserError
from mbdcnn.presets import preset
from tune._data import SearchData, choose_data, load_data


def config(side: int) -> Config:
    return override(preset("smoke"), [f"preprocessing.image_size={side}", "augmentation.crop_min=0.5"])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _load(data: SearchData, cache: str) -> tuple[bool, int]:
    os.environ["XDG_CACHE_HOME"] = cache
    manifest, copies, made = load_data(data)
    assert copies is not None
    return made, len(manifest.items)


@pytest.mark.multiprocess
def test_of_trials_that_begin_together_one_reduces_the_images(sample: Manifest, tmp_path: Path) -> None:
    data = choose_data(sample, None, [config(32)])
    assert (data.short_side, data.pixels) == (64, "64px-1")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        results = pool.starmap(_load, [(data, str(tmp_path / "cache"))] * 3)
    assert sorted(made for made, _ in results) == [False, False, True]
    assert {count for _, count in results} == {len(sample.items)}
    _, copies, made = load_data(data)
    assert not made
    assert copies is not None
    assert copies.short_side == 64
    assert set(copies.images) == {item.sha256 for item in sample.items}


def test_images_that_are_no_larger_than_needed_are_taken_as_they_are(sample: Manifest) -> None:
    data = choose_data(sample, None, [config(128)])
    assert (data.short_side, data.copies, data.pixels) == (0, None, "")
    assert load_data(data)[1] is None


def test_the_originals_on_request(sample: Manifest) -> None:
    assert choose_data(sample, "none", [config(32)]).pixels == ""


def test_prepared_copies_that_fit_serve_all_machines(sample: Manifest, tmp_path: Path) -> None:
    prepare(sample, tmp_path / "copies", 64)
    data = choose_data(sample, str(tmp_path / "copies"), [config(32)])
    assert data.pixels == "64px-1"
    copies = load_data(data)[1]
    assert copies is not None
    assert copies.folder == tmp_path / "copies"


def test_the_closest_look_of_all_points_decides(sample: Manifest) -> None:
    weak = override(config(32), ["augmentation.crop_min=1.0"])
    assert choose_data(sample, None, [weak]).short_side == 32
    assert choose_data(sample, None, [weak, config(32)]).short_side == 64


def test_a_machine_with_other_data_is_refused(sample: Manifest) -> None:
    data = replace(choose_data(sample, None, [config(32)]), fingerprint="0" * 64)
    with pytest.raises(UserError, match=f"holds other data on the machine {os.uname().nodename}"):
        load_data(data)
