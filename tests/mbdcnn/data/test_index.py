from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mbdcnn.data import isic2017
from mbdcnn.data.index import index_folder, summarise
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError

IMAGES = isic2017.images_folder("training")
MASKS = isic2017.masks_folder("training")
LABELS = isic2017.labels_file("training")


def reasons(manifest: Manifest) -> dict[str, str]:
    return {fault.path: fault.reason for fault in manifest.faults}


def by_id(manifest: Manifest) -> dict[str, Any]:
    return {item.image_id: item for item in manifest.items}


def test_whole_folder_in_order(folder: Any) -> None:
    for split in ("test", "validation", "training"):
        folder.pairs(split)
    manifest = index_folder(folder.root)
    assert manifest.faults == ()
    assert [(i.split, i.image_id[-1]) for i in manifest.items] == [
        (split, n) for split in ("training", "validation", "test") for n in "123"
    ]
    assert [i.label for i in manifest.select("test")] == ["nevus", "melanoma", "seborrheic_keratosis"]
    first = manifest.items[0]
    assert (first.width, first.height) == (24, 16)
    assert first.image == f"{IMAGES}/ISIC_0000001.jpg"
    assert first.mask == f"{MASKS}/ISIC_0000001_segmentation.png"
    assert manifest == index_folder(folder.root)


def test_letters_case_does_not_matter(folder: Any) -> None:
    folder.pairs()
    (folder.root / IMAGES).rename(folder.root / IMAGES.lower())
    (folder.root / MASKS).rename(folder.root / MASKS.upper())
    (folder.root / LABELS).rename(folder.root / LABELS.upper())
    images, masks = folder.root / IMAGES.lower(), folder.root / MASKS.upper()
    (images / "ISIC_0000001.jpg").rename(images / "isic_0000001.JPG")
    (masks / "ISIC_0000002_segmentation.png").rename(masks / "ISIC_0000002_Segmentation.PNG")
    manifest = index_folder(folder.root)
    assert manifest.faults == ()
    assert len(manifest.select("training", masks=True, labels=True)) == 3


def test_companions_are_skipped(folder: Any) -> None:
    folder.pairs()
    shutil.copy(folder.root / IMAGES / "ISIC_0000001.jpg", folder.root / IMAGES / "ISIC_0000001_superpixels.png")
    (folder.root / IMAGES / "ISIC-2017_Training_Data_metadata.csv").write_text("image_id,age_approximate,sex\n")
    (folder.root / IMAGES / ".DS_Store").write_bytes(b"x")
    (folder.root / "README.txt").write_text("x")
    manifest = index_folder(folder.root)
    assert manifest.faults == ()
    assert len(manifest.items) == 3


def test_parts_may_be_missing(folder: Any) -> None:
    folder.pairs("training")
    folder.pairs("validation")
    folder.pairs("test")
    shutil.rmtree(folder.root / isic2017.masks_folder("validation"))
    (folder.root / isic2017.labels_file("test")).unlink()
    manifest = index_folder(folder.root)
    assert manifest.faults == ()
    assert [len(manifest.select("validation", masks=m, labels=not m)) for m in (True, False)] == [0, 3]
    assert [len(manifest.select("test", masks=m, labels=not m)) for m in (True, False)] == [3, 0]


def test_single_images_may_lack_mask_or_label_but_not_both(folder: Any) -> None:
    folder.pairs()
    folder.image("ISIC_0000004")
    folder.mask("ISIC_0000004")
    folder.image("ISIC_0000005")
    (folder.root / MASKS / "ISIC_0000001_segmentation.png").unlink()
    manifest = index_folder(folder.root)
    items = by_id(manifest)
    assert items["ISIC_0000001"].mask is None
    assert items["ISIC_0000001"].mask_sha256 is None
    assert items["ISIC_0000004"].label is None
    assert reasons(manifest) == {f"{IMAGES}/ISIC_0000005.jpg": "has neither a usable mask nor a usable label"}


def damage_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_text(path: Path) -> None:
    path.write_text("a text file called .jpg\n")


def damage_gif(path: Path) -> None:
    Image.new("L", (24, 16)).save(path, format="GIF")


def damage_oversized(path: Path) -> None:
    Image.new("1", (8001, 8000)).save(path, format="PNG")


def damage_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def damage_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def damage_outside(path: Path) -> None:
    outside = path.parents[2] / path.name
    path.rename(outside)
    path.symlink_to(outside)


def damage_dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.jpg")


DAMAGES = [
    (damage_truncated, "cannot be used: .* damaged or truncated"),
    (damage_empty, "is empty"),
    (damage_text, "cannot be used: not a readable JPEG, PNG or BMP image"),
    (damage_gif, "cannot be used: not a readable JPEG, PNG or BMP image"),
    (damage_oversized, "cannot be used: the image has 8001 x 8000 pixels, more than 64000000"),
    (damage_pipe, "is not a regular file"),
    (damage_folder, "is not a regular file"),
    (damage_outside, "is a link that leads out of the data folder"),
    (damage_dangling, "is a link that leads nowhere"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_damaged_image_is_left_out(folder: Any, damage: Any, reason: str) -> None:
    folder.pairs()
    damage(folder.root / IMAGES / "ISIC_0000002.jpg")
    manifest = index_folder(folder.root)
    assert list(by_id(manifest)) == ["ISIC_0000001", "ISIC_0000003"]
    assert [fault.path for fault in manifest.faults] == [f"{IMAGES}/ISIC_0000002.jpg"]
    assert re.fullmatch(reason, manifest.faults[0].reason)


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_damaged_mask_leaves_the_image_for_classification(folder: Any, damage: Any, reason: str) -> None:
    folder.pairs()
    damage(folder.root / MASKS / "ISIC_0000002_segmentation.png")
    manifest = index_folder(folder.root)
    assert len(manifest.items) == 3
    assert by_id(manifest)["ISIC_0000002"].mask is None
    assert [fault.path for fault in manifest.faults] == [f"{MASKS}/ISIC_0000002_segmentation.png"]
    assert re.fullmatch(reason, manifest.faults[0].reason)


def test_mask_of_another_size_names_both(folder: Any) -> None:
    folder.pairs()
    folder.mask("ISIC_0000002", size=(20, 16))
    manifest = index_folder(folder.root)
    name = f"{MASKS}/ISIC_0000002_segmentation.png"
    assert reasons(manifest) == {name: "is 20 x 16 pixels but its image is 24 x 16"}
    assert by_id(manifest)["ISIC_0000002"].label == "melanoma"


def test_size_is_the_displayed_one(folder: Any) -> None:
    folder.pairs()
    path = folder.root / IMAGES / "ISIC_0000002.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.open(path).save(path, exif=exif)
    folder.mask("ISIC_0000002", size=(16, 24))
    manifest = index_folder(folder.root)
    assert manifest.faults == ()
    assert (by_id(manifest)["ISIC_0000002"].width, by_id(manifest)["ISIC_0000002"].height) == (16, 24)


def test_names_that_do_not_fit(folder: Any) -> None:
    folder.pairs()
    shutil.copy(folder.root / IMAGES / "ISIC_0000001.jpg", folder.root / IMAGES / "isic_0000001.jpeg")
    (folder.root / IMAGES / "scan.tiff").write_bytes(b"II*\0")
    folder.mask("ISIC_0000009")
    shutil.copy(folder.root / MASKS / "ISIC_0000001_segmentation.png", folder.root / MASKS / "ISIC_0000003.png")
    found = reasons(index_folder(folder.root))
    assert found == {
        f"{IMAGES}/isic_0000001.jpeg": "is a second file for the id of ISIC_0000001.jpg",
        f"{IMAGES}/scan.tiff": "is not named as a JPEG, PNG or BMP file",
        f"{MASKS}/ISIC_0000009_segmentation.png": "has no image",
        f"{MASKS}/ISIC_0000003.png": "is not named after its image as ISIC_0000000_segmentation.png",
    }


def test_link_inside_the_folder_is_fine(folder: Any) -> None:
    folder.pairs()
    path = folder.root / IMAGES / "ISIC_0000001.jpg"
    path.rename(folder.root / "kept.jpg")
    path.symlink_to(folder.root / "kept.jpg")
    assert index_folder(folder.root).faults == ()


def test_linked_part_that_leads_out_is_one_fault(folder: Any) -> None:
    folder.pairs()
    outside = folder.root.parent / "masks"
    (folder.root / MASKS).rename(outside)
    (folder.root / MASKS).symlink_to(outside)
    manifest = index_folder(folder.root)
    assert reasons(manifest) == {MASKS: "is a link that leads out of the data folder"}
    assert len(manifest.select("training", labels=True)) == 3


def test_masks_and_labels_without_images(folder: Any) -> None:
    folder.pairs()
    folder.mask("ISIC_0000001", "test")
    folder.labels([], "test")
    manifest = index_folder(folder.root)
    expected = "belongs to images that are not there: ISIC-2017_Test_v2_Data"
    assert set(reasons(manifest).values()) == {expected}
    assert len(manifest.faults) == 2


def test_folders_without_anything_usable(tmp_path: Path, folder: Any) -> None:
    with pytest.raises(UserError, match=r"missing does not exist: name a folder that holds ISIC-2017_Training_Data"):
        index_folder(tmp_path / "missing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file, not a folder"):
        index_folder(tmp_path / "file")
    with pytest.raises(
        UserError, match=r"nothing of the ISIC-2017, the PH2 or the plain layout: .*Data/.* or PH2Dataset/.* or images/"
    ):
        index_folder(tmp_path)
    damage_text(folder.image("ISIC_0000001"))
    folder.mask("ISIC_0000001")
    with pytest.raises(UserError, match=r"no usable image \(1 fault.*ISIC_0000001\.jpg, which cannot be used"):
        index_folder(folder.root)
    shutil.rmtree(folder.root)
    (folder.root / IMAGES).mkdir(parents=True)
    with pytest.raises(UserError, match="holds no usable image"):
        index_folder(folder.root)


def test_fingerprint_sees_pixels_masks_and_labels(folder: Any) -> None:
    folder.pairs()
    seen = [index_folder(folder.root).fingerprint]
    assert index_folder(folder.root).fingerprint == seen[0]

    image = folder.root / IMAGES / "ISIC_0000001.jpg"
    pixels = np.array(Image.open(image))
    pixels[0, 0] = 255 - pixels[0, 0]
    Image.fromarray(pixels).save(image)
    seen.append(index_folder(folder.root).fingerprint)

    mask = folder.root / MASKS / "ISIC_0000001_segmentation.png"
    plane = np.array(Image.open(mask))
    plane[0, 0] = 255
    Image.fromarray(plane).save(mask)
    seen.append(index_folder(folder.root).fingerprint)

    labels = folder.root / LABELS
    labels.write_text(labels.read_text().replace("0001,0.0,0.0", "0001,1.0,0.0"))
    seen.append(index_folder(folder.root).fingerprint)
    assert len(set(seen)) == 4


def test_manifest_survives_a_round_trip(folder: Any, tmp_path: Path) -> None:
    folder.pairs()
    (folder.root / IMAGES / "scan.tiff").write_bytes(b"II*\0")
    manifest = index_folder(folder.root)
    manifest.save(tmp_path / "manifest.json")
    loaded = Manifest.load(tmp_path / "manifest.json")
    assert (loaded.items, loaded.faults) == (manifest.items, manifest.faults)
    assert loaded.read(loaded.items[0].image) == (folder.root / IMAGES / "ISIC_0000001.jpg").read_bytes()


def test_summary_counts(folder: Any) -> None:
    folder.pairs("training")
    folder.pairs("validation")
    (folder.root / isic2017.labels_file("validation")).unlink()
    (folder.root / IMAGES / "scan.tiff").write_bytes(b"II*\0")
    summary = summarise(index_folder(folder.root))
    assert (summary["images"], len(summary["faults"]), summary["in_several_splits"]) == (6, 1, 3)
    assert summary["splits"]["training"] == {
        "images": 3,
        "masks": 3,
        "labels": 3,
        "classes": {"nevus": 1, "melanoma": 1, "seborrheic_keratosis": 1},
    }
    assert (summary["splits"]["validation"]["masks"], summary["splits"]["validation"]["labels"]) == (3, 0)
    assert summary["splits"]["test"]["images"] == 0
