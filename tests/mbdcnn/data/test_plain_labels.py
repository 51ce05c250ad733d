from __future__ import annotations

from typing import Any

import pytest

from mbdcnn.classes import CLASSES
from mbdcnn.data.index import index_folder, summarise
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError

SPLIT = ("image", "label", "split")


def labels(manifest: Manifest) -> dict[str, str | None]:
    return {item.image_id: item.label for item in manifest.items}


def splits(manifest: Manifest) -> dict[str, str]:
    return {item.image_id: item.split for item in manifest.items}


def test_rows_that_repeat_or_name_no_image(plain_folder: Any) -> None:
    plain_folder.cases()
    plain_folder.labels(
        [
            ["a0", "benign"],
            ["a1.jpg", "malignant"],
            ["A0.JPG", "benign"],
            ["a1", "benign"],
            ["Nobody", "benign"],
            ["", "benign"],
            ["a2", ""],
            ["a3"],
        ]
    )
    manifest = index_folder(plain_folder.root)
    assert labels(manifest) == {
        "a0": "benign", "a1": None, "a2": None, "a3": None, "a4": None, "a5": None,
    }  # fmt: skip
    assert [fault.reason for fault in manifest.faults] == [
        "line 4 (A0) repeats the image of line 2",
        "line 5 (a1) repeats the image of line 3 with another label; neither is used",
        "line 6 (Nobody) names an image that is not there",
        "line 7 (no image_id) names no image",
    ]


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("malignant", "benign"), ("benign", "malignant")),
        (("melanoma", "nevus"), ("nevus", "melanoma")),
        (("seborrheic_keratosis", "melanoma", "nevus"), CLASSES),
        (("melanoma", "nevus", "other"), ("melanoma", "nevus", "other")),
        (("Zebra", "apple", "Äpfel", "10", "9"), ("10", "9", "apple", "Zebra", "Äpfel")),
        (("nævus bénin", "melanom: in situ", "true", "null"), ("melanom: in situ", "null", "nævus bénin", "true")),
        (("one",), ("one",)),
    ],
)
def test_classes_stand_in_a_fixed_order(plain_folder: Any, names: Any, classes: Any) -> None:
    for order in (names, tuple(reversed(names))):
        for name in order:
            plain_folder.image(f"{order.index(name)}.jpg")
        plain_folder.labels([[str(n), name] for n, name in enumerate(order)])
        manifest = index_folder(plain_folder.root)
        assert (manifest.classes, manifest.faults) == (classes, ())


def test_a_class_spelled_in_two_cases_is_one(plain_folder: Any) -> None:
    plain_folder.cases(4)
    plain_folder.labels([["a0", "Benign"], ["a1", "benign "], ["a2", "BENIGN"], ["a3", "Other one"]])
    manifest = index_folder(plain_folder.root)
    assert manifest.classes == ("Benign", "Other one")
    assert summarise(manifest)["splits"]["training"]["classes"]["Benign"] == 1


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("two\nlines", "is not plain UTF-8 text"),
        ("bell\a", "is not plain UTF-8 text"),
        ("x" * 101, "has not 1 to 100 characters, or spaces around them"),
        ("${oc.env:HOME}", "has another meaning in the results or settings"),
        ("???", "has another meaning in the results or settings"),
        ("mean_AUC", "has another meaning in the results or settings"),
        ("error", "has another meaning in the results or settings"),
    ],
)
def test_labels_that_cannot_name_a_class(plain_folder: Any, label: str, reason: str) -> None:
    plain_folder.cases(3)
    plain_folder.labels([["a0", "benign"], ["a1", label], ["a2", "malignant"]])
    manifest = index_folder(plain_folder.root)
    assert manifest.classes == ("benign", "malignant")
    (fault,) = manifest.faults
    assert fault.path == "labels.csv"
    assert fault.reason.endswith(f"(a1) has a label that {reason}: {label!r}")


def test_a_csv_of_another_encoding_costs_its_odd_rows(plain_folder: Any) -> None:
    plain_folder.cases(3)
    (plain_folder.root / "labels.csv").write_bytes("image,label\na0,nävus\na1,melanom\n".encode("latin-1"))
    manifest = index_folder(plain_folder.root)
    assert manifest.classes == ("melanom",)
    assert "is not plain UTF-8 text" in manifest.faults[0].reason


@pytest.mark.parametrize("content", ["\n", "image,diagnosis\na0,x\n", "image;label\na0;x\n", "\0\0\xff binary"])
def test_a_csv_without_a_needed_column(plain_folder: Any, content: str) -> None:
    plain_folder.cases()
    (plain_folder.root / "labels.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"labels.csv lacks the column '\w+': its header must name image, label"):
        index_folder(plain_folder.root)


def test_a_csv_that_cannot_be_read_is_not_passed_over(plain_folder: Any) -> None:
    plain_folder.cases()
    (plain_folder.root / "labels.csv").write_text("")
    with pytest.raises(UserError, match=r"labels.csv is empty; mend it or take it away"):
        index_folder(plain_folder.root)
    (plain_folder.root / "labels.csv").unlink()
    (plain_folder.root / "labels.csv").mkdir()
    with pytest.raises(UserError, match=r"labels.csv is not a regular file; mend it or take it away"):
        index_folder(plain_folder.root)


def test_given_splits(plain_folder: Any) -> None:
    ids = plain_folder.cases(8)
    words = ["train", "Training", "VAL", "valid", "validation", "test", "", "Test"]
    plain_folder.labels([[i, "benign", w] for i, w in zip(ids, words, strict=True)], SPLIT)
    manifest = index_folder(plain_folder.root)
    assert manifest.faults == ()
    assert splits(manifest) == {
        "a0": "training", "a1": "training", "a2": "validation", "a3": "validation", "a4": "validation",
        "a5": "test", "a6": "training", "a7": "test",
    }  # fmt: skip
    assert manifest.drawn_splits == 1


def test_an_image_whose_split_is_not_clear_is_left_out(plain_folder: Any) -> None:
    plain_folder.cases(5)
    rows = [
        ["a0", "benign", "train"],
        ["a1", "benign", "holdout"],
        ["a2", "benign", "train"],
        ["a2", "benign", "test"],
        ["a3", "", "test"],
    ]
    plain_folder.labels(rows, SPLIT)
    manifest = index_folder(plain_folder.root)
    assert splits(manifest) == {"a0": "training", "a3": "test", "a4": "training"}
    assert [fault.reason for fault in manifest.faults] == [
        "line 3 (a1) has the split 'holdout', which is none of training, validation, test; the image is left out",
        "line 5 (a2) gives another split than the line before it; the image is left out",
        "line 5 (a2) repeats the image of line 4",
    ]
