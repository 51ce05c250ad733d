from __future__ import annotations

from typing import Any

import pytest

from mbdcnn.data import isic2017
from mbdcnn.data.index import index_folder
from mbdcnn.errors import UserError

LABELS = isic2017.labels_file("training")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["ISIC_0000002", "1.0", "1.0"], "marks both melanoma and seborrheic_keratosis"),
        (["ISIC_0000002", "yes", "0.0"], "has 'yes' for melanoma"),
        (["ISIC_0000002", "0.5", "0.0"], "has '0.5' for melanoma"),
        (["ISIC_0000002", "nan", "0.0"], "has 'nan' for melanoma"),
        (["ISIC_0000002", "0.0"], "has '' for seborrheic_keratosis"),
        (["ISIC_0000002"], "has '' for melanoma"),
    ],
)
def test_bad_row_costs_that_label_only(folder: Any, row: list[str], reason: str) -> None:
    folder.pairs()
    folder.labels([["ISIC_0000001", "0", "0"], row, ["ISIC_0000003", "0.0", "1.0"]])
    manifest = index_folder(folder.root)
    assert [i.label for i in manifest.items] == ["nevus", None, "seborrheic_keratosis"]
    assert manifest.faults[0].path == LABELS
    assert manifest.faults[0].reason.startswith(f"line 3 (ISIC_0000002) {reason}")
    assert len(manifest.faults) == 1


def test_rows_that_repeat_or_name_no_image(folder: Any) -> None:
    folder.pairs()
    folder.labels(
        [
            ["ISIC_0000001", "0.0", "0.0"],
            ["ISIC_0000002", "1.0", "0.0"],
            ["isic_0000001", "0.0", "0.0"],
            ["ISIC_0000002", "0.0", "0.0"],
            ["ISIC_0000099", "0.0", "0.0"],
            ["", "0.0", "0.0"],
        ]
    )
    manifest = index_folder(folder.root)
    assert [i.label for i in manifest.items] == ["nevus", None, None]
    assert sorted(fault.reason for fault in manifest.faults) == [
        "line 4 (isic_0000001) repeats the image of line 2",
        "line 5 (ISIC_0000002) repeats the image of line 3 with another label; neither is used",
        "line 6 (ISIC_0000099) names an image that is not there",
        "line 7 (no image_id) names no image",
    ]


def test_csv_as_spreadsheets_write_it(folder: Any) -> None:
    folder.pairs()
    text = "Image_ID , Melanoma,age,seborrheic_keratosis\r\nISIC_0000001,1,60,0\r\n\r\n ISIC_0000002 ,0,,1.0\r\n"
    (folder.root / LABELS).write_bytes(b"\xef\xbb\xbf" + text.encode())
    manifest = index_folder(folder.root)
    assert [i.label for i in manifest.items] == ["melanoma", "seborrheic_keratosis", None]
    assert manifest.faults == ()


@pytest.mark.parametrize("content", ["", "image_id,melanoma\nISIC_0000001,0.0\n", "\0\0\xff binary"])
def test_csv_without_a_needed_column_is_the_users_to_mend(folder: Any, content: str) -> None:
    folder.pairs()
    (folder.root / LABELS).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=rf"{LABELS} lacks the column '\w+'"):
        index_folder(folder.root)
