from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mbdcnn.data.index import index_folder
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError
from mbdcnn.preprocessing import decode_image, decode_mask

IMAGES = "PH2Dataset/PH2 Dataset images"


def reasons(manifest: Manifest) -> dict[str, str]:
    return {fault.path: fault.reason for fault in manifest.faults}


def test_whole_folder(ph2_folder: Any) -> None:
    ph2_folder.cases()
    manifest = index_folder(ph2_folder.root)
    assert manifest.faults == ()
    assert [(i.image_id, i.split, i.label) for i in manifest.items] == [
        ("IMD002", "test", "nevus"),
        ("IMD003", "test", "nevus"),
        ("IMD004", "test", "melanoma"),
    ]
    first = manifest.items[0]
    assert first.image == f"{IMAGES}/IMD002/IMD002_Dermoscopic_Image/IMD002.bmp"
    assert first.mask == f"{IMAGES}/IMD002/IMD002_lesion/IMD002_lesion.bmp"
    assert (first.width, first.height) == (24, 16)
    assert manifest.read(first.image)[:2] == b"BM"


def test_root_may_be_the_folder_itself(ph2_folder: Any) -> None:
    ph2_folder.cases()
    inner, outer = index_folder(ph2_folder.base), index_folder(ph2_folder.root)
    assert inner.fingerprint == outer.fingerprint
    assert f"PH2Dataset/{inner.items[0].image}" == outer.items[0].image


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_bitmaps_of_every_depth_and_direction(ph2_folder: Any, mode: str, top_down: bool) -> None:
    image, mask = ph2_folder.image("IMD002", top_down=top_down), ph2_folder.mask("IMD002", mode, top_down=top_down)
    heights = {int.from_bytes(path.read_bytes()[22:26], "little", signed=True) for path in (image, mask)}
    assert heights == {-16 if top_down else 16}
    bits = {"RGB": 24, "L": 8, "P": 8, "1": 1}
    assert int.from_bytes(mask.read_bytes()[28:30], "little") == bits[mode]
    manifest = index_folder(ph2_folder.root)
    (item,) = manifest.items
    assert item.mask is not None
    expected = np.zeros((16, 24), bool)
    expected[4:12, 6:18] = True
    np.testing.assert_array_equal(decode_mask(manifest.read(item.mask)), expected)
    rng = np.random.default_rng(sum(b"IMD002"))
    np.testing.assert_array_equal(decode_image(manifest.read(item.image)), rng.integers(0, 255, (16, 24, 3), np.uint8))


@pytest.mark.parametrize(("old", "new"), [(" ", "_"), ("_", " "), (" ", ""), ("", "")])
@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
def test_case_spaces_and_underscores_do_not_matter(ph2_folder: Any, old: str, new: str, case: Any) -> None:
    ph2_folder.cases()
    for path in sorted(ph2_folder.root.rglob("*"), key=lambda p: -len(p.parts)):
        stem, dot, suffix = path.name.partition(".")
        path.rename(path.with_name((case(stem).replace(old, new) if old else case(stem)) + dot + case(suffix)))
    manifest = index_folder(ph2_folder.root)
    assert manifest.faults == ()
    assert [i.label for i in manifest.items] == ["nevus", "nevus", "melanoma"]
    assert all(item.mask for item in manifest.items)
    assert [i.image_id.lower() for i in manifest.items] == ["imd002", "imd003", "imd004"]


def test_copies_and_regions_are_ignored(ph2_folder: Any) -> None:
    ph2_folder.cases()
    case = ph2_folder.images / "IMD002"
    for name in ("IMD002_lesion/IMD002_lesion.jpg", "IMD002_Dermoscopic_Image/IMD002.jpg", "IMD002_roi/IMD002_R1.bmp"):
        (case / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(case / name)
    (ph2_folder.images / "Thumbs.db").write_bytes(b"x")
    (ph2_folder.base / "Readme.txt").write_text("x")
    assert index_folder(ph2_folder.root).faults == ()


def test_missing_files(ph2_folder: Any) -> None:
    ph2_folder.cases()
    ph2_folder.image("IMD005")
    cases = ph2_folder.images
    shutil.rmtree(cases / "IMD002" / "IMD002_lesion")
    (cases / "IMD003" / "IMD003_lesion" / "IMD003_lesion.bmp").unlink()
    shutil.rmtree(cases / "IMD004" / "IMD004_Dermoscopic_Image")
    (cases / "IMD006").mkdir()
    (cases / "IMD007").write_text("a file")
    (cases / "notes").mkdir()
    manifest = index_folder(ph2_folder.root)
    assert [(i.image_id, i.mask, i.label) for i in manifest.items] == [
        ("IMD002", None, "nevus"),
        ("IMD003", None, "nevus"),
    ]
    assert reasons(manifest) == {
        f"{IMAGES}/IMD003/IMD003_lesion": "holds no IMD003_lesion.bmp",
        f"{IMAGES}/IMD004": "holds no folder IMD004_Dermoscopic_Image",
        f"{IMAGES}/IMD005/IMD005_Dermoscopic_Image/IMD005.bmp": "has neither a usable mask nor a usable label",
        f"{IMAGES}/IMD006": "holds no folder IMD006_Dermoscopic_Image",
        f"{IMAGES}/IMD007": "should be a folder",
        f"{IMAGES}/notes": "is not named after an image as IMD002",
    }


def test_damage_and_links_that_leave_the_folder(ph2_folder: Any, tmp_path: Path) -> None:
    ph2_folder.cases()
    image = ph2_folder.image("IMD002")
    image.write_bytes(image.read_bytes()[:200])
    image = ph2_folder.image("IMD003")
    image.rename(tmp_path / "IMD003.bmp")
    image.symlink_to(tmp_path / "IMD003.bmp")
    ph2_folder.mask("IMD004", size=(20, 16))
    ph2_folder.image("IMD008")
    (ph2_folder.images / "IMD008").rename(tmp_path / "IMD008")
    (ph2_folder.images / "IMD008").symlink_to(tmp_path / "IMD008")
    manifest = index_folder(ph2_folder.root)
    assert [(i.image_id, i.mask) for i in manifest.items] == [("IMD004", None)]
    assert reasons(manifest) == {
        f"{IMAGES}/IMD002/IMD002_Dermoscopic_Image/IMD002.bmp": "cannot be used: the image is damaged or truncated",
        f"{IMAGES}/IMD003/IMD003_Dermoscopic_Image/IMD003.bmp": "is a link that leads out of the data folder",
        f"{IMAGES}/IMD004/IMD004_lesion/IMD004_lesion.bmp": "is 20 x 16 pixels but its image is 24 x 16",
        f"{IMAGES}/IMD008": "is a link that leads out of the data folder",
    }


def test_second_folder_of_the_same_name(ph2_folder: Any) -> None:
    ph2_folder.cases()
    ph2_folder.image("imd002")
    manifest = index_folder(ph2_folder.root)
    assert len(manifest.items) == 3
    assert reasons(manifest) == {f"{IMAGES}/imd002": "is a second folder for its image id"}


def test_nothing_usable(ph2_folder: Any) -> None:
    ph2_folder.base.mkdir(parents=True)
    with pytest.raises(UserError, match=r"1 faults, for example PH2Dataset, which holds no folder PH2 Dataset images"):
        index_folder(ph2_folder.root)
    ph2_folder.base.rmdir()
    ph2_folder.base.write_text("a file")
    with pytest.raises(UserError, match="PH2Dataset, which should be a folder"):
        index_folder(ph2_folder.root)


def test_a_folder_of_both_layouts_is_isic2017(folder: Any, ph2_folder: Any) -> None:
    folder.pairs()
    ph2_folder.cases()
    shutil.move(ph2_folder.base, folder.root)
    assert {i.split for i in index_folder(folder.root).items} == {"training"}


@pytest.mark.parametrize("seed", range(30))
def test_no_damage_raises(ph2_folder: Any, seed: int) -> None:
    """Random damage to an image and a mask: at worst they are left out."""
    ph2_folder.cases()
    rng = np.random.default_rng(seed)
    for path in (ph2_folder.image("IMD003"), ph2_folder.mask("IMD004", ["RGB", "L", "1"][seed % 3])):
        data = bytearray(path.read_bytes())
        for at in rng.integers(0, min(len(data), 80 if seed % 2 else len(data)), rng.integers(1, 12)):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
    manifest = index_folder(ph2_folder.root)
    assert manifest.items[0].image_id == "IMD002"
    assert all(re.search("[a-z]", fault.reason) for fault in manifest.faults)
