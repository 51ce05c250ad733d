from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mbdcnn.classes import CLASSES
from mbdcnn.data.derive import fold_manifest, folds, out_of_fold, supervised
from mbdcnn.data.index import index_folder
from mbdcnn.data.manifest import Item, Manifest
from mbdcnn.data.sample import write_ph2_sample, write_sample
from mbdcnn.errors import UserError


def item(number: int, label: str | None, split: str = "training", mask: bool = True) -> Item:
    image_id, sha256 = f"ISIC_{number:07d}", f"{number:064x}"
    return Item(image_id, split, f"{image_id}.jpg", f"{image_id}.png" if mask else None, label, 24, 16, sha256, sha256)


def labelled(*counts: int) -> list[Item]:
    """So many images of each class, then without a label."""
    labels = [label for label, count in zip((*CLASSES, None), counts, strict=False) for _ in range(count)]
    return [item(number, label) for number, label in enumerate(labels)]


def ids(items: Any) -> list[str]:
    return [i.image_id for i in items]


def count(items: Any) -> Counter[str | None]:
    return Counter(i.label for i in items)


@pytest.mark.parametrize("counts", [(160, 40), (37, 12, 9, 6), (20, 1, 0, 1), (3, 3, 3, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize("n", [2, 4])
def test_folds_hold_each_image_once_and_the_classes_in_proportion(counts: tuple[int, ...], n: int) -> None:
    items = labelled(*counts)
    parts = folds(items, n, seed=3)
    assert len(parts) == n
    assert sorted(ids(i for part in parts for i in part)) == ids(items)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    if max(counts) >= n:
        for label in (*CLASSES, None):
            shares = [count(part)[label] for part in parts]
            assert max(shares) - min(shares) <= 1
    assert parts == folds(items, n, seed=3)
    assert len(items) < 20 or parts != folds(items, n, seed=4)


@pytest.mark.parametrize("n", [1, 5])
def test_more_folds_than_images(n: int) -> None:
    with pytest.raises(UserError, match=f"4 images cannot be shared out to {n} folds"):
        folds(labelled(4), n, 0)


@pytest.fixture(scope="module")
def isic(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("data") / "isic"
    write_sample(root, {"training": 6, "validation": 3, "test": 3}, 120)
    return index_folder(root)


@pytest.fixture(scope="module")
def ph2(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("other") / "ph2"
    write_ph2_sample(root, 10, size=120)
    return index_folder(root)


def test_each_ph2_image_is_tested_in_one_fold(isic: Manifest, ph2: Manifest) -> None:
    tested: list[str] = []
    fingerprints = set()
    for fold in range(4):
        manifest = fold_manifest(ph2, isic, fold, 4, seed=0)
        training, test = (manifest.select(split, masks=True, labels=True) for split in ("training", "test"))
        assert ids(manifest.select("validation")) == ids(isic.select("validation"))
        assert sorted(ids(training) + ids(test)) == ids(ph2.items)
        assert len(manifest.items) == 13
        assert [i.split for i in manifest.items] == sorted(
            (i.split for i in manifest.items), key=("training", "validation", "test").index
        )
        assert set(count(test)) == {"nevus", "melanoma"}
        tested += ids(test)
        fingerprints.add(manifest.fingerprint)
    assert sorted(tested) == ids(ph2.items)
    assert len(fingerprints) == 4


def test_a_fold_speaks_for_both_folders(
    isic: Manifest, ph2: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(ph2.root)
    monkeypatch.chdir(isic.root.parent)
    linked, relative = replace(ph2, root=tmp_path / "link"), replace(isic, root=Path("isic"))
    fold_manifest(linked, relative, 1, 4, seed=0).save(tmp_path / "manifest.json")
    manifest = Manifest.load(tmp_path / "manifest.json")
    assert manifest.root.is_absolute()
    origin = {i.sha256: (source, i) for source in (isic, ph2) for i in source.items}
    for moved in manifest.items:
        source, before = origin[moved.sha256]
        assert manifest.read(moved.image) == source.read(before.image)
        assert manifest.read(moved.mask or "") == source.read(before.mask or "")
        assert not Path(moved.image).is_absolute()
        assert ".." not in Path(moved.image).parts
        assert replace(moved, split=before.split, image=before.image, mask=before.mask) == before


def test_folds_of_data_sets_that_lack_something(isic: Manifest, ph2: Manifest) -> None:
    with pytest.raises(UserError, match="has no validation split to choose the epoch"):
        fold_manifest(ph2, ph2, 0, 4, seed=0)
    with pytest.raises(UserError, match="has 3 test images, too few for 4 folds"):
        fold_manifest(isic, isic, 0, 4, seed=0)


def test_each_training_image_with_a_mask_is_held_out_once() -> None:
    items = [*labelled(8, 4), item(90, "nevus", mask=False), item(91, "nevus", "validation")]
    manifest = Manifest(Path("data"), tuple(items))
    rounds = out_of_fold(manifest, 3, seed=1)
    assert sorted(ids(i for held_out, _ in rounds for i in held_out)) == ids(items[:12])
    for held_out, rest in rounds:
        assert rest.root == manifest.root
        assert sorted(ids(held_out) + ids(rest.items)) == sorted(ids(items))
        assert set(count(held_out)) == {"nevus", "melanoma"}


def test_copies_of_what_is_held_out_teach_nothing() -> None:
    items = labelled(6)
    items[5] = replace(items[5], sha256=items[0].sha256)
    for held_out, rest in out_of_fold(Manifest(Path("data"), tuple(items)), 3, seed=0):
        assert not {i.sha256 for i in held_out} & {i.sha256 for i in rest.items}


def test_more_folds_than_training_images() -> None:
    manifest = Manifest(Path("data"), tuple(labelled(3)))
    with pytest.raises(UserError, match=r"bootstrap\.coarse_folds = 4 is more than the 3 training images with a mask"):
        out_of_fold(manifest, 4, seed=0)


def supervision(manifest: Manifest) -> tuple[set[str], set[str]]:
    masks = manifest.select("training", masks=True)
    return set(ids(masks)), set(ids(manifest.select("training", labels=True)))


WHOLE = Manifest(Path("data"), (*labelled(60, 30, 10), item(200, "nevus", "validation"), item(201, None, "test")))


def test_more_labels_include_fewer_and_keep_the_proportion() -> None:
    numbers = [10, 20, 50, 99, 100]
    for position in (0, 1):
        before: set[str] = set()
        for number in numbers:
            wanted = [0, 0]
            wanted[position] = number
            made = supervised(WHOLE, *wanted, seed=5)
            kept, other = supervision(made)[position], supervision(made)[1 - position]
            assert (len(kept), len(other)) == (number, 100)
            assert before <= kept
            mix = count(i for i in WHOLE.items if i.image_id in kept)
            assert all(abs(mix[c] - number * n / 100) <= 1 for c, n in zip(CLASSES, (60, 30, 10), strict=True))
            before = kept


def test_images_with_neither_go_and_other_splits_stay() -> None:
    made = supervised(WHOLE, 10, 25, seed=5)
    masks, labels = supervision(made)
    assert masks < labels
    assert set(ids(made.select("training"))) == labels
    for split in ("validation", "test"):
        assert made.select(split) == WHOLE.select(split)
    without = next(i for i in made.select("training") if i.image_id not in masks)
    assert (without.mask, without.mask_sha256) == (None, None)
    assert supervised(WHOLE, 10, 25, seed=5) == made
    assert supervised(WHOLE, 10, 25, seed=6).fingerprint != made.fingerprint


def test_zero_is_all() -> None:
    assert supervised(WHOLE, 0, 0, seed=5) == WHOLE
    assert supervised(WHOLE, 100, 100, seed=5) == WHOLE


def test_labels_that_are_not_everywhere() -> None:
    only_labels = [item(300 + n, "melanoma", mask=False) for n in range(20)]
    manifest = replace(WHOLE, items=(*WHOLE.items, *labelled(0, 0, 0, 5), *only_labels)[5:])
    made = supervised(manifest, 30, 60, seed=0)
    masks, labels = supervision(made)
    assert (len(masks), len(labels)) == (30, 60)
    assert masks | labels == set(ids(made.select("training")))


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ((101, 0), "supervision.pixel_labels = 101 is more than the 100 training images with a mask"),
        ((0, 120), "supervision.image_labels = 120 is more than the 100 training images with a label"),
    ],
)
def test_more_labels_than_there_are(wanted: tuple[int, int], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        supervised(WHOLE, *wanted, seed=0)
