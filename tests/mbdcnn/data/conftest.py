from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mbdcnn.data import isic2017


class Folder:
    """A small data folder of the ISIC-2017 layout, built file by file."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def image(self, image_id: str, split: str = "training", size: tuple[int, int] = (24, 16)) -> Path:
        path = self.root / isic2017.images_folder(split) / f"{image_id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(sum(image_id.encode())).integers(0, 255, (size[1], size[0], 3), np.uint8)
        Image.fromarray(noise).save(path)
        return path

    def mask(self, image_id: str, split: str = "training", size: tuple[int, int] = (24, 16)) -> Path:
        path = self.root / isic2017.masks_folder(split) / isic2017.mask_name(image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        plane = np.zeros((size[1], size[0]), np.uint8)
        plane[4:12, 6:18] = 255
        Image.fromarray(plane).save(path)
        return path

    def labels(self, rows: list[list[str]], split: str = "training") -> Path:
        path = self.root / isic2017.labels_file(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([list(isic2017.COLUMNS), *rows])
        return path

    def pairs(self, split: str = "training") -> None:
        """Three images `ISIC_0000001..3` with masks, one of each class."""
        marks = [["0.0", "0.0"], ["1.0", "0.0"], ["0.0", "1.0"]]
        for number in (1, 2, 3):
            self.image(f"ISIC_000000{number}", split)
            self.mask(f"ISIC_000000{number}", split)
        self.labels([[f"ISIC_000000{n}", *marks[n - 1]] for n in (1, 2, 3)], split)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "set")
