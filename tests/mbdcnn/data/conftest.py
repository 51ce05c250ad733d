from __future__ import annotations

import csv
import io
import struct
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from PIL import Image

from mbdcnn.data import isic2017, ph2, plain


def noise(image_id: str, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(sum(image_id.encode())).integers(0, 255, (size[1], size[0], 3), np.uint8)


def lesion(size: tuple[int, int]) -> np.ndarray:
    plane = np.zeros((size[1], size[0]), np.uint8)
    plane[4:12, 6:18] = 255
    return plane


class Folder:
    """A small data folder of the ISIC-2017 layout, built file by file."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def image(self, image_id: str, split: str = "training", size: tuple[int, int] = (24, 16)) -> Path:
        path = self.root / isic2017.images_folder(split) / f"{image_id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(image_id, size)).save(path)
        return path

    def mask(self, image_id: str, split: str = "training", size: tuple[int, int] = (24, 16)) -> Path:
        path = self.root / isic2017.masks_folder(split) / isic2017.mask_name(image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(lesion(size)).save(path)
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


class PH2Folder:
    """A small data folder of the PH2 layout, built file by file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = root / ph2.BASE
        self.images = self.base / ph2.IMAGES

    def bitmap(self, path: Path, image: Image.Image, top_down: bool = False) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        image.save(buffer, "BMP")
        data = bytearray(buffer.getvalue())
        if top_down:  # the rows the other way round, which a negative height says
            start, height = *struct.unpack_from("<I", data, 10), image.height
            row = (len(data) - start) // height
            rows = [data[start + at * row : start + (at + 1) * row] for at in reversed(range(height))]
            struct.pack_into("<i", data, 22, -height)
            data[start:] = b"".join(rows)
        path.write_bytes(data)
        return path

    def image(self, image_id: str, size: tuple[int, int] = (24, 16), top_down: bool = False) -> Path:
        path = self.images / image_id / ph2.image_folder(image_id) / ph2.image_name(image_id)
        return self.bitmap(path, Image.fromarray(noise(image_id, size)), top_down)

    def mask(self, image_id: str, mode: str = "1", size: tuple[int, int] = (24, 16), top_down: bool = False) -> Path:
        path = self.images / image_id / ph2.lesion_folder(image_id) / ph2.lesion_name(image_id)
        return self.bitmap(path, Image.fromarray(lesion(size)).convert(mode), top_down)

    def workbook(self, rows: list[list[object]]) -> Path:
        """The rows below a legend and a header of the original's kind."""
        book = openpyxl.Workbook()
        legend = [
            ["PH2 data set"],
            ["Asymmetry:", "0 - symmetric", "2 - asymmetric"],
            [],
            [None, "Melanoma is marked X"],
        ]
        header = [ph2.NAME_COLUMN, "Histological\nDiagnosis", *ph2.DIAGNOSES, "Asymmetry\n(0/1/2)"]
        for row in [*legend, header, *rows]:
            book.active.append(row)
        path = self.base / ph2.WORKBOOK
        book.save(path)
        return path

    def cases(self) -> None:
        """`IMD002`, `IMD003` and `IMD004` with masks and labels: a common nevus, an atypical one and a melanoma."""
        for image_id in ("IMD002", "IMD003", "IMD004"):
            self.image(image_id)
            self.mask(image_id)
        self.workbook(
            [
                ["IMD002", "Compound nevus", "X", None, None, 0],
                ["IMD003", None, None, "x", None, 1],
                ["IMD004", "Melanoma", None, None, " X ", 2],
            ]
        )


class PlainFolder:
    """A small data folder of the plain layout, built file by file."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def image(self, file: str, size: tuple[int, int] = (24, 16)) -> Path:
        return self._picture(plain.IMAGES, file, Image.fromarray(noise(file, size)))

    def mask(self, file: str, size: tuple[int, int] = (24, 16)) -> Path:
        return self._picture(plain.MASKS, file, Image.fromarray(lesion(size)))

    def _picture(self, folder: str, file: str, picture: Image.Image) -> Path:
        path = self.root / folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        return path

    def labels(self, rows: list[list[str]], columns: tuple[str, ...] = plain.COLUMNS) -> Path:
        path = self.root / plain.LABELS
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([list(columns), *rows])
        return path

    def cases(self, count: int = 6) -> list[str]:
        """Images `a0`, `a1`, ... with masks, benign and malignant in turn; their ids."""
        ids = [f"a{n}" for n in range(count)]
        for image_id in ids:
            self.image(f"{image_id}.jpg")
            self.mask(f"{image_id}.png")
        self.labels([[image_id, ("benign", "malignant")[n % 2]] for n, image_id in enumerate(ids)])
        return ids


@pytest.fixture
def plain_folder(tmp_path: Path) -> PlainFolder:
    return PlainFolder(tmp_path / "mine")


@pytest.fixture
def ph2_folder(tmp_path: Path) -> PH2Folder:
    return PH2Folder(tmp_path / "ph2")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "set")
