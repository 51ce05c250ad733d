"""The sheet of augmented images: what `mbdcnn data show` draws."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mbdcnn.config import override
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError
from mbdcnn.presets import preset
from train.show import _in_turn, write_sheet

STILL = ["crop_probability=0", "rotation_deg=0", "shear_rad=0", "shift_px=0", "zoom_min=1", "zoom_max=1"]
NO_FLIPS = ["augmentation.horizontal_flip=0", "augmentation.vertical_flip=0"]


def draw(path: Path, manifest: Manifest, *settings: str, images: int = 3, variants: int = 2) -> np.ndarray:
    assert write_sheet(path, manifest, override(preset("smoke"), settings), "training", images, variants) == images
    with Image.open(path) as sheet:
        return np.asarray(sheet.convert("RGB")).astype(int)


def test_a_sheet_depends_on_settings_and_seed_alone(sample: Manifest, tmp_path: Path) -> None:
    first, again, reseeded = (draw(tmp_path / "a.png", sample, f"seed={seed}") for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != reseeded).any()


def test_without_augmentation_every_column_shows_the_frame(sample: Manifest, tmp_path: Path) -> None:
    still = draw(tmp_path / "a.png", sample, *(f"augmentation.{rule}" for rule in STILL), *NO_FLIPS)
    # below the titles of the first line, whose first panel alone has one
    height, width = still.shape[0] // 4, still.shape[1] // 3
    columns = [still[60:height, at * width + 12 : (at + 1) * width - 12] for at in range(3)]
    for column in columns[1:]:
        shorter = min(column.shape[1], columns[0].shape[1])
        assert np.abs(column[:, :shorter] - columns[0][:, :shorter]).mean() < 6  # the columns' own edges may differ
    moved = draw(tmp_path / "b.png", sample)
    assert np.abs(moved - still).mean() > 6


def test_the_classes_take_turns(sample: Manifest) -> None:
    labels = [item.label for item in _in_turn(sample.select("training"))]
    assert len(labels) == 24
    assert set(labels[:3]) == set(labels[3:6]) == {"nevus", "melanoma", "seborrheic_keratosis"}


def test_what_cannot_be_shown_is_refused(sample: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image of the split test with a mask"):
        write_sheet(tmp_path / "a.png", sample, preset("smoke"), "test", 1, 1)
    with pytest.raises(UserError, match="at least 1"):
        write_sheet(tmp_path / "a.png", sample, preset("smoke"), "training", 0, 1)


def test_the_command(sample_folder: Path, tmp_path: Path) -> None:
    words = [
        "data",
        "show",
        sample_folder,
        "augmentation.rotation_deg=90",
        "--images",
        "2",
        "--variants",
        "1",
        "--json",
    ]
    command = [sys.executable, "-m", "mbdcnn", *map(str, words)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert (document["images"], document["variants"]) == (2, 1)
    with Image.open(tmp_path / document["picture"]) as sheet:
        assert sheet.format == "PNG"
