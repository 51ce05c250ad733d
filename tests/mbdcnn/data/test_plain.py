from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mbdcnn.classes import CLASSES
from mbdcnn.data.index import index_folder, summarise
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError

SPLIT = ("image", "label", "split")


def found(manifest: Manifest) -> dict[str, tuple[str | None, str | None]]:
    """Mask and label by image id."""
    return {item.image_id: (item.mask, item.label) for item in manifest.items}


def reasons(manifest: Manifest) -> list[tuple[str, str]]:
    return [(fault.path, fault.reason) for fault in manifest.faults]


def splits(manifest: Manifest) -> dict[str, str]:
    return {item.image_id: item.split for item in manifest.items}


def test_whole_folder(plain_folder: Any) -> None:
    plain_folder.cases()
    manifest = index_folder(plain_folder.root)
    assert manifest.faults == ()
    assert manifest.classes == ("benign", "malignant")
    assert found(manifest) == {f"a{n}": (f"masks/a{n}.png", ("benign", "malignant")[n % 2]) for n in range(6)}
    assert manifest.drawn_splits == 6
    summary = summarise(manifest)
    assert summary["drawn_splits"] == 6
    for split in ("training", "validation", "test"):
        assert summary["splits"][split]["classes"] == {"benign": 1, "malignant": 1}


def test_every_image_format_mask_name_and_letters_case(plain_folder: Any) -> None:
    images = ["a.jpg", "b.PNG", "c.bmp", "d.jpeg", "e.jpg"]
    masks = ["a.png", "B_segmentation.png", "c_mask.png", "d_MASK.PNG", "e.bmp"]
    for image, mask in zip(images, masks, strict=True):
        plain_folder.image(image)
        plain_folder.mask(mask)
    (plain_folder.root / "images").rename(plain_folder.root / "Images")
    manifest = index_folder(plain_folder.root)
    assert manifest.faults == ()
    assert found(manifest) == {i[0]: (f"masks/{m}", None) for i, m in zip(images, masks, strict=True)}
    assert manifest.classes == CLASSES  # nothing names others


def test_a_mask_belongs_to_the_image_of_its_whole_name(plain_folder: Any) -> None:
    for image_id in ("a", "a_mask", "a_mask_mask", "b"):
        plain_folder.image(f"{image_id}.jpg")
    for mask in ("a_segmentation", "a_mask", "a_mask_mask", "b", "b_mask", "c_mask"):
        plain_folder.mask(f"{mask}.png")
    manifest = index_folder(plain_folder.root)
    assert found(manifest) == {
        "a": ("masks/a_segmentation.png", None),
        "a_mask": ("masks/a_mask.png", None),
        "a_mask_mask": ("masks/a_mask_mask.png", None),
        "b": ("masks/b.png", None),
    }
    assert reasons(manifest) == [
        ("masks/b_mask.png", "is a second file for the id of b.png"),
        ("masks/c_mask.png", "has no image"),
    ]


HOSTILE = [
    "two words",
    " leading and trailing ",
    "Läsion № 5 – «α»",
    "病変 ①",
    "semi;colon, comma \"quote\" 'and'",
    "dots.in.name",
    "looks.like.png",
    "$HOME `x` $(y) & | * ? [a] {b}",
    "-rf",
    "#1",
    "=1+1",
    "%2e%2e",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_names_of_all_kinds(plain_folder: Any, name: str, suffix: str) -> None:
    plain_folder.image(f"{name}.jpg")
    plain_folder.mask(f"{name}.png")
    plain_folder.image("other.jpg")
    plain_folder.labels([[f"{name}{suffix}", "benign"], ["other", "malignant"]])
    manifest = index_folder(plain_folder.root)
    assert manifest.faults == ()
    assert found(manifest)[name] == (f"masks/{name}.png", "benign")
    assert manifest.read(f"masks/{name}.png")


def test_composed_and_decomposed_letters_are_the_same(plain_folder: Any) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Größe é") for form in ("NFC", "NFD"))
    assert composed != decomposed
    plain_folder.image(f"{decomposed}.jpg")
    plain_folder.image("b.jpg")
    plain_folder.mask(f"{composed}.png")
    plain_folder.labels([[composed, composed], ["b", decomposed]])
    manifest = index_folder(plain_folder.root)
    assert manifest.faults == ()
    assert found(manifest)[decomposed] == (f"masks/{composed}.png", composed)
    assert manifest.classes == (composed,)


def test_names_too_long_for_what_is_made_of_them(plain_folder: Any) -> None:
    plain_folder.cases()
    path = plain_folder.image("ü" * 99 + ".jpg")
    assert reasons(index_folder(plain_folder.root)) == [
        (f"images/{path.name}", "has a name of more than 200 bytes; shorten it")
    ]


def test_files_that_do_not_fit(plain_folder: Any) -> None:
    plain_folder.cases()
    root = plain_folder.root
    shutil.copy(root / "images" / "a0.jpg", root / "images" / "a0.png")
    (root / "images" / "notes.txt").write_text("x")
    (root / "images" / "sub").mkdir()
    (root / "images" / "a1.jpg").write_text("no picture")
    plain_folder.mask("a2.png", size=(20, 16))
    plain_folder.mask("nobody.png")
    outside = root.parent / "out.png"
    (root / "masks" / "a3.png").rename(outside)
    (root / "masks" / "a3.png").symlink_to(outside)
    manifest = index_folder(root)
    assert reasons(manifest) == [
        ("images/a0.png", "is a second file for the id of a0.jpg"),
        ("images/a1.jpg", "cannot be used: not a readable JPEG, PNG or BMP image"),
        ("images/notes.txt", "is not named as a JPEG, PNG or BMP file"),
        ("images/sub", "is not named as a JPEG, PNG or BMP file"),
        ("masks/a2.png", "is 20 x 16 pixels but its image is 24 x 16"),
        ("masks/a3.png", "is a link that leads out of the data folder"),
        ("masks/nobody.png", "has no image"),
    ]
    assert sorted(found(manifest)) == ["a0", "a2", "a3", "a4", "a5"]


@pytest.mark.parametrize("part", ["images", "masks", "labels.csv"])
def test_a_linked_part_that_leads_out_is_not_followed(plain_folder: Any, part: str) -> None:
    plain_folder.cases()
    outside = plain_folder.root.parent / "elsewhere"
    (plain_folder.root / part).rename(outside)
    (plain_folder.root / part).symlink_to(outside)
    if part == "masks":
        assert reasons(index_folder(plain_folder.root)) == [(part, "is a link that leads out of the data folder")]
    else:
        with pytest.raises(UserError, match=f"{part}.* is a link that leads out of the data folder"):
            index_folder(plain_folder.root)


def test_splits_stay_when_the_folder_is_read_again_or_moved(plain_folder: Any, tmp_path: Path) -> None:
    plain_folder.cases(40)
    before = index_folder(plain_folder.root)
    moved = plain_folder.root.rename(tmp_path / "moved")
    after = index_folder(moved)
    assert splits(after) == splits(before)
    assert after.fingerprint == before.fingerprint


def test_parts_without_images(plain_folder: Any) -> None:
    plain_folder.cases()
    shutil.rmtree(plain_folder.root / "images")
    with pytest.raises(UserError, match=r"no usable image .* it needs images/NAME.jpg, masks/NAME.png and labels.csv"):
        index_folder(plain_folder.root)


def test_other_layouts_come_first(plain_folder: Any, folder: Any) -> None:
    plain_folder.root = folder.root
    plain_folder.cases()
    folder.pairs()
    assert {item.image_id for item in index_folder(folder.root).items} == {f"ISIC_000000{n}" for n in (1, 2, 3)}


def test_manifest_keeps_its_classes(plain_folder: Any, tmp_path: Path) -> None:
    plain_folder.cases()
    manifest = index_folder(plain_folder.root)
    manifest.save(tmp_path / "m.json")
    loaded = Manifest.load(tmp_path / "m.json")
    assert (loaded.classes, loaded.drawn_splits) == (manifest.classes, 6)
    assert loaded.fingerprint == manifest.fingerprint


def test_old_manifests_have_the_challenges_classes(folder: Any, tmp_path: Path) -> None:
    folder.pairs()
    manifest = index_folder(folder.root)
    manifest.save(tmp_path / "m.json")
    document = json.loads((tmp_path / "m.json").read_text())
    del document["classes"], document["drawn_splits"]
    (tmp_path / "m.json").write_text(json.dumps(document))
    assert Manifest.load(tmp_path / "m.json").classes == CLASSES


def test_the_fingerprint_sees_other_classes_only(plain_folder: Any) -> None:
    plain_folder.cases(3)
    plain_folder.labels([["a0", "nevus"], ["a1", "melanoma"], ["a2", "seborrheic_keratosis"]])
    manifest = index_folder(plain_folder.root)
    same = Manifest(manifest.root, manifest.items)  # as an index of version 0.1 would have it
    assert manifest.fingerprint == same.fingerprint
    assert Manifest(manifest.root, manifest.items, classes=("a", "b")).fingerprint != same.fingerprint


def test_a_picture_in_two_splits_is_told(plain_folder: Any) -> None:
    plain_folder.cases(3)
    shutil.copy(plain_folder.root / "images" / "a0.jpg", plain_folder.root / "images" / "a1.jpg")
    plain_folder.labels([["a0", "x", "train"], ["a1", "x", "test"], ["a2", "y", "val"]], SPLIT)
    assert summarise(index_folder(plain_folder.root))["in_several_splits"] == 1


def test_size_is_the_displayed_one(plain_folder: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    path = plain_folder.image("a.jpg")
    Image.open(path).save(path, exif=exif)
    plain_folder.mask("a.png", size=(16, 24))
    (item,) = index_folder(plain_folder.root).items
    assert (item.width, item.height, item.mask) == (16, 24, "masks/a.png")
