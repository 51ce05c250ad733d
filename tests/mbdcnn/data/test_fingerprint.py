"""Every figure of a fingerprint against a folder made by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mbdcnn.data import isic2017
from mbdcnn.data.fingerprint import describe, fingerprint_of, save, survey
from mbdcnn.data.fingerprint_page import write_fingerprint_page
from mbdcnn.data.index import index_folder
from mbdcnn.data.leakage import SAME_FILE, SAME_LESION, SAME_PIXELS, leakage_warning
from mbdcnn.data.manifest import Manifest
from mbdcnn.data.sample import draw, write_sample
from mbdcnn.errors import UserError

NEVUS, MELANOMA = ["0.0", "0.0"], ["1.0", "0.0"]


def put(folder: Any, image_id: str, split: str, image: np.ndarray, mask: np.ndarray | None = None, **how: Any) -> Path:
    path = folder.image(image_id, split).with_suffix(how.pop("suffix", ".png"))
    path.with_suffix(".jpg").unlink()
    Image.fromarray(image).save(path, **how)
    if mask is not None:
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder.mask(image_id, split))
    return path


def half(colour: tuple[int, int, int], other: tuple[int, int, int], size: tuple[int, int]) -> np.ndarray:
    image = np.full((size[1], size[0], 3), colour, np.uint8)
    image[:, size[0] // 2 :] = other
    return image


def fingerprint(root: Path) -> dict[str, Any]:
    manifest = index_folder(root)
    return describe(manifest, survey(manifest))


def paths(pair: dict[str, Any]) -> list[str]:
    return [Path(image["path"]).name for image in pair["images"]]


@pytest.fixture
def leaky(folder: Any) -> Any:
    """Two training images, and in validation the bytes of one and a recompressed, turned copy of the other."""
    pictures = [draw("training", number, 200)[0] for number in range(4)]
    for number in (0, 1):
        put(folder, f"ISIC_000000{number}", "training", pictures[number])
    put(folder, "ISIC_0000002", "validation", pictures[2])
    twin = folder.root / isic2017.images_folder("validation") / "ISIC_0000010.png"
    shutil.copy(folder.root / isic2017.images_folder("training") / "ISIC_0000000.png", twin)
    put(folder, "ISIC_0000011", "validation", np.rot90(pictures[1]), suffix=".jpg", quality=60)
    folder.labels([["ISIC_0000000", *NEVUS], ["ISIC_0000001", *NEVUS]], "training")
    rows = [["ISIC_0000002", *NEVUS], ["ISIC_0000010", *MELANOMA], ["ISIC_0000011", *NEVUS]]
    folder.labels(rows, "validation")
    return folder


def test_every_figure_of_a_split(folder: Any) -> None:
    empty, full = np.zeros((10, 20), bool), np.ones((10, 20), bool)
    inner = empty.copy()
    inner[2:6, 5:10] = True  # 20 of 200 pixels
    left = np.zeros((30, 40), bool)
    left[5:20, :2] = True  # 30 of 1200 pixels
    sizes = (20, 10)
    encoded = [
        put(folder, "ISIC_0000001", "training", half((255, 0, 51), (0, 0, 51), sizes), inner),
        put(folder, "ISIC_0000002", "training", half((0, 255, 51), (0, 255, 51), sizes), empty),
        put(folder, "ISIC_0000003", "training", half((0, 255, 102), (0, 0, 51), sizes), full),
        put(folder, "ISIC_0000004", "training", half((0, 0, 51), (0, 0, 51), (40, 30)), left),
    ]
    rows = [["ISIC_0000001", *NEVUS], ["ISIC_0000002", *NEVUS], ["ISIC_0000004", *MELANOMA]]
    folder.labels(rows, "training")
    document = fingerprint(folder.root)
    held = document["splits"]["training"]
    assert (held["images"], held["masks"], held["labels"]) == (4, 4, 3)
    assert held["classes"] == {"nevus": 2, "melanoma": 1}
    assert document["classes"] == ["nevus", "melanoma"]
    assert held["encoded_bytes"] == sum(path.stat().st_size for path in encoded)
    assert held["sizes"]["width"] == {"min": 20, "median": 20.0, "max": 40}
    assert held["sizes"]["height"] == {"min": 10, "median": 10.0, "max": 30}
    assert held["sizes"]["megapixels"] == {"min": 0.0002, "median": 0.0002, "max": 0.0012}
    assert held["sizes"]["most_common"] == [
        {"width": 20, "height": 10, "images": 3},
        {"width": 40, "height": 30, "images": 1},
    ]
    lesion = held["lesion"]
    assert (lesion["empty"], lesion["full"], lesion["touching_border"]) == (["ISIC_0000002"], ["ISIC_0000003"], 2)
    assert lesion["area"] == pytest.approx(
        {"0": 0, "0.05": 0.00375, "0.25": 0.01875, "0.5": 0.0625, "0.75": 0.325, "0.95": 0.865, "1": 1}
    )
    assert len(lesion["histogram"]["edges"]) == 21
    assert np.flatnonzero(lesion["histogram"]["images"]).tolist() == [0, 2, 19]
    # each image counts alike, though the last one has six times the pixels
    assert held["colour"]["mean"] == pytest.approx([0.125, 0.375, 0.225], abs=1e-4)
    # green: 0, 1, a half of 1 and 0 again, so mean 0.375 of the squares too; blue: 0.2 but for an eighth of 0.4
    deviation = [np.sqrt(0.125 - 0.125**2), np.sqrt(0.375 - 0.375**2), np.sqrt(0.055 - 0.225**2)]
    assert held["colour"]["std"] == pytest.approx(deviation, abs=1e-4)
    assert document["splits"]["test"]["sizes"] is None
    assert document["splits"]["test"]["colour"] is None
    assert "1 training image with a mask that is empty, for example ISIC_0000002." in document["warnings"]
    assert "1 training image with a mask that is full, for example ISIC_0000003." in document["warnings"]


def test_faults_and_a_class_that_a_split_lacks(folder: Any) -> None:
    folder.pairs("training")
    folder.image("ISIC_0000007", "validation")
    folder.labels([["ISIC_0000007", *MELANOMA]], "validation")
    (folder.root / isic2017.images_folder("training") / "scan.tiff").write_bytes(b"II*\0")
    document = fingerprint(folder.root)
    assert "The validation split has no nevus and no seborrheic keratosis." in document["warnings"]
    (fault,) = document["faults"]
    assert fault["path"].endswith("scan.tiff")
    assert fault["reason"]


def test_leaks_of_each_kind_are_found(leaky: Any) -> None:
    document = fingerprint(leaky.root)
    same, near = document["leakage"]
    assert same["relation"] == SAME_FILE
    assert paths(same) == ["ISIC_0000010.png", "ISIC_0000000.png"]
    assert [image["split"] for image in same["images"]] == ["validation", "training"]
    assert near["relation"] == SAME_LESION
    assert paths(near) == ["ISIC_0000011.jpg", "ISIC_0000001.png"]
    assert near["view"] == "turned by 90°"
    assert 0.7 < near["likeness"] <= 1
    assert document["pairs"] == document["leakage"]
    assert document["label_conflicts"] == [same]
    assert any("(melanoma) and" in warning for warning in document["warnings"])


def test_the_same_pixels_in_another_encoding(folder: Any) -> None:
    picture = draw("training", 0, 200)[0]
    put(folder, "ISIC_0000001", "training", picture)
    put(folder, "ISIC_0000002", "training", picture, suffix=".bmp")
    folder.labels([["ISIC_0000001", *NEVUS], ["ISIC_0000002", *NEVUS]])
    document = fingerprint(folder.root)
    (pair,) = document["pairs"]
    assert pair["relation"] == SAME_PIXELS
    assert document["leakage"] == document["label_conflicts"] == []
    assert "1 pair of images within a split show the same." in document["warnings"]


def test_every_image_of_a_group_across_splits_is_in_a_pair_that_leaks(folder: Any) -> None:
    picture = draw("training", 0, 200)[0]
    for number, split in enumerate(("training", "validation", "test", "test")):
        put(folder, f"ISIC_000000{number}", split, picture)
        folder.labels([[f"ISIC_000000{n}", *NEVUS] for n in (0, 1, 2, 3)], split)
    document = fingerprint(folder.root)
    assert len(document["pairs"]) == 3
    assert len({path for pair in document["leakage"] for path in paths(pair)}) == 4


def test_a_near_duplicate_of_twins_is_named_across_splits(folder: Any) -> None:
    picture = draw("training", 1, 200)[0]
    put(folder, "ISIC_0000001", "training", picture)
    put(folder, "ISIC_0000002", "test", picture)
    put(folder, "ISIC_0000003", "training", picture, suffix=".jpg", quality=60)
    folder.labels([["ISIC_0000001", *NEVUS], ["ISIC_0000003", *NEVUS]])
    folder.labels([["ISIC_0000002", *NEVUS]], "test")
    leaks = fingerprint(folder.root)["leakage"]
    assert [paths(pair) for pair in leaks] == [
        ["ISIC_0000002.png", "ISIC_0000001.png"],
        ["ISIC_0000002.png", "ISIC_0000003.jpg"],
    ]


def test_the_warning_names_both_files_of_ten_pairs_and_where_the_rest_is(leaky: Any) -> None:
    leaks = fingerprint(leaky.root)["leakage"]
    said = leakage_warning(leaks, "f.json").splitlines()
    assert "LEAKAGE: 2 pairs of images" in said[0]
    validation, training = (isic2017.images_folder(split) for split in ("validation", "training"))
    assert said[1:] == [
        f"  {validation}/ISIC_0000010.png (validation) is the same file as {training}/ISIC_0000000.png (training)",
        f"  {validation}/ISIC_0000011.jpg (validation) is a near-duplicate of {training}/ISIC_0000001.png (training)",
    ]
    many = leakage_warning(leaks * 7, "f.json").splitlines()
    assert len(many) == 12
    assert many[-1] == "  and 4 more, listed in f.json"


def test_a_drawn_set_has_no_duplicates(tmp_path: Path) -> None:
    write_sample(tmp_path / "set", {"training": 30, "validation": 9, "test": 9}, 200)
    document = fingerprint(tmp_path / "set")
    assert document["pairs"] == document["warnings"] == []


def test_a_fingerprint_is_kept_while_the_data_stay(leaky: Any, tmp_path: Path) -> None:
    manifest, file = index_folder(leaky.root), tmp_path / "f.json"
    document = fingerprint_of(manifest, [file])
    assert document == json.loads(json.dumps(document))
    save(document | {"images": -1}, file)  # to tell it from one that is made anew
    assert fingerprint_of(manifest, [tmp_path / "none.json", file])["images"] == -1
    (leaky.root / isic2017.images_folder("validation") / "ISIC_0000010.png").unlink()
    assert fingerprint_of(index_folder(leaky.root), [file])["images"] == 4
    file.write_text("[half of a docu")
    assert fingerprint_of(Manifest(manifest.root, manifest.items[:2]), [file])["images"] == 2


def test_a_file_that_changed_meanwhile(folder: Any) -> None:
    folder.pairs()
    manifest = index_folder(folder.root)
    (folder.root / manifest.items[1].image).write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(UserError, match=r"ISIC_0000002\.jpg has changed since it was indexed"):
        survey(manifest)


def test_the_page_shows_leaks_first_and_escapes_names(leaky: Any, tmp_path: Path) -> None:
    (leaky.root / isic2017.images_folder("training") / "a<b>.tiff").write_bytes(b"II*\0")
    put(leaky, "ISIC_0000012", "validation", draw("training", 2, 200)[0], suffix=".bmp")
    manifest = index_folder(leaky.root)
    glances = survey(manifest)
    document = describe(manifest, glances)
    write_fingerprint_page(tmp_path / "page.html", document, manifest, glances)
    page = (tmp_path / "page.html").read_text()
    alarm = page.index('class="alarm"')
    assert alarm < page.index("ISIC_0000010.png") < page.index("ISIC_0000011.jpg") < page.index(">Classes<")
    assert "Leakage: 2 pairs of images across splits" in page
    assert "different labels" in page
    assert "the right one turned by 90°" in page
    assert page.count("data:image/jpeg;base64,") == 2 * len(document["pairs"])
    assert page.count("data:image/svg+xml;base64,") == 3  # no masks, no chart of lesion areas
    assert "a&lt;b&gt;.tiff" in page
    assert "a<b>" not in page
    assert "http" not in page.replace("http-equiv", "")
