from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mbdcnn.data import isic2017
from mbdcnn.data.index import index_folder, summarise
from mbdcnn.data.manifest import Manifest

EXTRA = isic2017.images_folder(isic2017.EXTRA)


def twins(manifest: Manifest) -> dict[str, str]:
    return {fault.path.removeprefix(f"{EXTRA}/"): fault.reason for fault in manifest.faults}


@pytest.fixture
def extra(folder: Any) -> Path:
    """Three splits and one extra image, a melanoma that no split has."""
    for split in ("training", "validation", "test"):
        for number in (1, 2, 3):
            image_id = f"ISIC_{split}{number}"
            folder.image(image_id, split)
            folder.mask(image_id, split)
    folder.image("ISIC_0000009", isic2017.EXTRA)
    folder.labels([["ISIC_0000009", "1.0", "0.0"]], isic2017.EXTRA)
    return folder.root / EXTRA


def label(extra: Path, *image_ids: str) -> None:
    with (extra.parent / isic2017.labels_file(isic2017.EXTRA)).open("a", newline="") as file:
        csv.writer(file).writerows([i, "0.0", "0.0"] for i in image_ids)


def official(extra: Path, split: str, number: int = 1) -> Path:
    return extra.parent / isic2017.images_folder(split) / f"ISIC_{split}{number}.jpg"


def test_names_of_the_extra_part() -> None:
    assert EXTRA == "ISIC-2017_Extra_Data"
    assert isic2017.labels_file(isic2017.EXTRA) == "ISIC-2017_Extra_Part3_GroundTruth.csv"


def test_extra_images_join_training_with_a_label_only(extra: Path) -> None:
    manifest = index_folder(extra.parent)
    assert manifest.faults == ()
    first = manifest.select("training")[0]
    assert (first.image_id, first.image, first.mask, first.label) == (
        "ISIC_0000009",
        f"{EXTRA}/ISIC_0000009.jpg",
        None,
        "melanoma",
    )
    assert [(i.split, i.image_id) for i in manifest.items] == sorted(
        ((i.split, i.image_id) for i in manifest.items),
        key=lambda key: (("training", "validation", "test").index(key[0]), key[1]),
    )
    assert summarise(manifest)["splits"]["training"] == {
        "images": 4,
        "masks": 3,
        "labels": 1,
        "classes": {"nevus": 0, "melanoma": 1, "seborrheic_keratosis": 0},
    }


@pytest.mark.parametrize("split", ["training", "validation", "test"])
def test_twins_are_left_out_by_file_pixels_and_id(extra: Path, folder: Any, split: str) -> None:
    source = official(extra, split)
    shutil.copy(source, extra / "ISIC_renamed.jpg")
    Image.open(source).save(extra / "ISIC_resaved.png")
    Image.open(source).save(extra / "ISIC_bitmap.bmp")
    data = source.read_bytes()
    (extra / "ISIC_comment.jpg").write_bytes(data[:2] + b"\xff\xfe\x00\x08copied" + data[2:])
    folder.image(f"isic_{split}2", isic2017.EXTRA)
    label(extra, "ISIC_renamed", "ISIC_resaved", "ISIC_bitmap", "ISIC_comment", f"isic_{split}2")
    manifest = index_folder(extra.parent)
    twin = f"ISIC-2017_{isic2017.PARTS[split]}_Data/ISIC_{split}"
    assert twins(manifest) == {
        "ISIC_renamed.jpg": f"is the same file as {twin}1.jpg",
        "ISIC_resaved.png": f"shows the same pixels as {twin}1.jpg",
        "ISIC_bitmap.bmp": f"shows the same pixels as {twin}1.jpg",
        "ISIC_comment.jpg": f"shows the same pixels as {twin}1.jpg",
        f"isic_{split}2.jpg": f"has the image id of {twin}2.jpg",
    }
    assert len(manifest.items) == 10


def test_extra_images_that_repeat_each_other(extra: Path) -> None:
    shutil.copy(extra / "ISIC_0000009.jpg", extra / "ISIC_0000010.jpg")
    label(extra, "ISIC_0000010")
    found = twins(index_folder(extra.parent))
    assert found == {"ISIC_0000010.jpg": f"is the same file as {EXTRA}/ISIC_0000009.jpg"}


def test_of_several_twins_the_one_that_would_spoil_a_score_is_named(extra: Path) -> None:
    for split in ("training", "validation"):
        shutil.copy(official(extra, "test"), official(extra, split))
    shutil.copy(official(extra, "test"), extra / "ISIC_0000010.jpg")
    label(extra, "ISIC_0000010")
    manifest = index_folder(extra.parent)
    assert "ISIC-2017_Test_v2_Data" in twins(manifest)["ISIC_0000010.jpg"]
    assert len(manifest.items) == 10  # the splits stay as they are, leaks included
    assert summarise(manifest)["in_several_splits"] == 1


def test_an_image_that_waits_for_its_label_has_twins_too(extra: Path) -> None:
    for split in ("validation", "test"):
        shutil.rmtree(extra.parent / isic2017.masks_folder(split))
    shutil.copy(official(extra, "test"), extra / "ISIC_0000010.jpg")
    label(extra, "ISIC_0000010")
    manifest = index_folder(extra.parent)
    assert {item.split for item in manifest.items} == {"training"}
    assert twins(manifest)["ISIC_0000010.jpg"] == "is the same file as ISIC-2017_Test_v2_Data/ISIC_test1.jpg"


def test_same_bytes_of_another_shape_are_no_twin(extra: Path) -> None:
    plane = np.full((16, 24, 3), 90, np.uint8)
    Image.fromarray(plane).save(official(extra, "test").with_suffix(".png"))
    official(extra, "test").unlink()
    Image.fromarray(plane.reshape(24, 16, 3)).save(extra / "ISIC_0000010.png")
    label(extra, "ISIC_0000010")
    manifest = index_folder(extra.parent)
    assert manifest.faults == ()
    assert len(manifest.items) == 11


def test_extra_images_need_a_label(extra: Path, folder: Any) -> None:
    folder.image("ISIC_0000010", isic2017.EXTRA)
    label(extra, "ISIC_0000011")
    manifest = index_folder(extra.parent)
    assert [(fault.path, fault.reason) for fault in manifest.faults] == [
        (f"{EXTRA}/ISIC_0000010.jpg", "has neither a usable mask nor a usable label"),
        (isic2017.labels_file(isic2017.EXTRA), "line 3 (ISIC_0000011) names an image that is not there"),
    ]
