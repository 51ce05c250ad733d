from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from PIL import Image

from mbdcnn.classes import CLASSES
from mbdcnn.data import isic2017
from mbdcnn.data.index import index_folder
from mbdcnn.data.sample import MARKER, draw, label_of, write_ph2_sample, write_sample
from mbdcnn.errors import UserError

COUNTS = {"training": 6, "validation": 3, "test": 3}
SIZE = 128


def contents(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name != MARKER)
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sample") / "set"
    write_sample(root, COUNTS, SIZE)
    return root


def test_sample_is_an_isic2017_folder_without_faults(sample: Path) -> None:
    manifest = index_folder(sample)
    assert manifest.faults == ()
    for split, count in COUNTS.items():
        items = manifest.select(split, masks=True, labels=True)
        assert len(items) == count
        assert Counter(i.label for i in items) == dict.fromkeys(CLASSES, count // 3)
    lines = (sample / isic2017.labels_file("training")).read_text().splitlines()
    assert lines[0] == "image_id,melanoma,seborrheic_keratosis"
    assert {",".join(line.split(",")[1:]) for line in lines[1:]} == {"0.0,0.0", "1.0,0.0", "0.0,1.0"}


def test_masks_are_binary_of_the_images_size_and_hold_one_visible_lesion(sample: Path) -> None:
    manifest = index_folder(sample)
    sizes = set()
    for item in manifest.items:
        image = np.asarray(Image.open(sample / item.image), dtype=float)
        mask_image = Image.open(sample / str(item.mask))
        mask = np.asarray(mask_image)
        assert mask_image.mode == "L"
        assert set(np.unique(mask)) == {0, 255}
        assert mask.shape == image.shape[:2]
        assert 0.02 < (mask > 0).mean() < 0.6
        height, width = mask.shape
        centre = image[height // 4 : -height // 4, width // 4 : -width // 4].mean(axis=2)
        inside = mask[height // 4 : -height // 4, width // 4 : -width // 4] > 0
        assert centre[inside].mean() < centre[~inside].mean()
        sizes.add(mask.shape)
    assert len(sizes) > 2


def test_an_image_does_not_depend_on_the_counts(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "few", {"training": 2}, SIZE)
    few, many = contents(tmp_path / "few"), contents(sample)
    assert {n: h for n, h in few.items() if not n.endswith(".csv")}.items() <= many.items()


def test_extra_images_have_a_label_only_and_change_no_other(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path, COUNTS, SIZE, extra=4)
    manifest = index_folder(tmp_path)
    assert manifest.faults == ()
    extra = [i for i in manifest.select("training", labels=True) if i.mask is None]
    assert [i.image.split("/")[0] for i in extra] == ["ISIC-2017_Extra_Data"] * 4
    assert Counter(i.label for i in extra[:3]) == dict.fromkeys(CLASSES, 1)
    both = contents(tmp_path)
    assert {n: h for n, h in both.items() if "Extra" not in n} == contents(sample)
    write_sample(tmp_path, COUNTS, SIZE)
    assert contents(tmp_path) == contents(sample)


def test_ph2_sample_is_a_ph2_folder_without_faults(tmp_path: Path) -> None:
    for images in (1, 2, 7):
        folder = tmp_path / str(images)
        write_ph2_sample(folder, images, size=SIZE)
        manifest = index_folder(folder)
        assert manifest.faults == ()
        assert [i.image_id for i in manifest.select("test", masks=True, labels=True)] == [
            f"IMD{number:03d}" for number in range(1, images + 1)
        ]
        classes = Counter(i.label for i in manifest.items)
        assert abs(classes["nevus"] - classes["melanoma"]) <= 1
    kinds = Counter(row[2:5].index("X") for row in rows_of(folder / "PH2Dataset" / "PH2_dataset.xlsx") if "X" in row)
    assert set(kinds) == {0, 1, 2}
    for item in manifest.items:
        mask = np.asarray(Image.open(folder / str(item.mask)))
        assert mask.dtype == bool
        assert 0.02 < mask.mean() < 0.6
    again = tmp_path / "again"
    write_ph2_sample(again, 7, size=SIZE)
    assert index_folder(again).fingerprint == manifest.fingerprint
    with pytest.raises(UserError, match="PH2Dataset is there already"):
        write_ph2_sample(again, 7, size=SIZE)
    with pytest.raises(UserError, match="at least one"):
        write_ph2_sample(tmp_path / "none", 0, size=SIZE)


def rows_of(workbook: Path) -> list[tuple[object, ...]]:
    return list(openpyxl.load_workbook(workbook).active.iter_rows(values_only=True))


def test_seed_changes_every_picture() -> None:
    for position in range(3):
        one, other = draw("training", position, 100, 1)[0], draw("training", position, 100, 2)[0]
        assert one.shape != other.shape or (one != other).any()
    again = draw("training", 0, 100, 1)[0]
    assert (again == draw("training", 0, 100, 1)[0]).all()
    assert any(label_of("training", i, 1) != label_of("training", i, 2) for i in range(12))


def test_second_call_touches_nothing(sample: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sample.rglob("*")}
    write_sample(sample, COUNTS, SIZE)
    assert before == {path: path.stat().st_mtime_ns for path in sample.rglob("*")}


def test_other_settings_replace_the_set_and_leave_other_files(tmp_path: Path) -> None:
    write_sample(tmp_path, {"training": 4, "test": 3}, SIZE)
    (tmp_path / "manifest.json").write_text("{}")
    write_sample(tmp_path, {"training": 3}, SIZE)
    assert (tmp_path / "manifest.json").exists()
    assert len(index_folder(tmp_path).items) == 3
    assert not (tmp_path / isic2017.images_folder("test")).exists()


def test_missing_file_is_drawn_again(tmp_path: Path) -> None:
    write_sample(tmp_path, {"training": 3}, SIZE)
    before = contents(tmp_path)
    next((tmp_path / isic2017.images_folder("training")).iterdir()).unlink()
    write_sample(tmp_path, {"training": 3}, SIZE)
    assert contents(tmp_path) == before


def test_interrupted_call_is_redone(tmp_path: Path) -> None:
    write_sample(tmp_path / "whole", {"training": 3}, SIZE)
    torn = tmp_path / "torn"
    write_sample(torn, {"training": 3}, SIZE)
    # As after an interruption between the moves: one part is in place, the others still lie in the stage.
    marker = json.loads((torn / MARKER).read_text())
    (torn / MARKER).write_text(json.dumps({**marker, "complete": False}))
    stage = torn / ".mbdcnn-sample.unfinished"
    stage.mkdir()
    masks = isic2017.masks_folder("training")
    (torn / masks).rename(stage / masks)
    write_sample(torn, {"training": 3}, SIZE)
    assert contents(torn) == contents(tmp_path / "whole")
    assert not stage.exists()


def test_foreign_folders_and_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        write_sample(tmp_path, {"training": 3}, SIZE)
    assert contents(tmp_path).keys() == {"notes.txt"}
    with pytest.raises(UserError, match="is a file"):
        write_sample(tmp_path / "notes.txt", {"training": 3}, SIZE)
    mine = tmp_path / "set"
    write_sample(mine, {"training": 3}, SIZE)
    (mine / isic2017.images_folder("training") / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"mine\.jpg, which is not of the sample set"):
        write_sample(mine, {"training": 4}, SIZE)
    assert (mine / isic2017.images_folder("training") / "mine.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("counts", "size", "seed", "message"),
    [
        ({"train": 3}, 128, 0, "no split 'train'"),
        ({"training": -1}, 128, 0, "cannot hold -1"),
        ({"training": 0}, 128, 0, "at least one"),
        ({"training": 3}, 10, 0, "width cannot be 10"),
        ({"training": 3}, 128, -1, "seed cannot be -1"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, counts: dict[str, int], size: int, seed: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_sample(tmp_path / "set", counts, size, seed)
    assert not (tmp_path / "set").exists()
