from __future__ import annotations

import zipfile
from typing import Any

import openpyxl
import pytest

from mbdcnn.data import ph2
from mbdcnn.data.index import index_folder
from mbdcnn.errors import UserError

WORKBOOK, TEXT = f"{ph2.BASE}/{ph2.WORKBOOK}", f"{ph2.BASE}/{ph2.TEXT}"

TABS = """Name\tClinical Diagnosis\tAsymmetry
IMD002\t0\t0
IMD003\t1\t1
IMD004\t2\t2

Legend
Clinical Diagnosis:\t0 - common nevus\t1 - atypical nevus\t2 - melanoma
"""
PIPES = """|| Name   || Histological Diagnosis || Clinical Diagnosis ||   Asymmetry ||
|| IMD002 ||                        ||         0          ||       0     ||
|| IMD003 ||                        ||         1          ||       1     ||
|| IMD004 ||        Melanoma        ||         2          ||       2     ||
+-----------------------------------------------------------------------+
Clinical Diagnosis: 0 - common nevus; 1 - atypical nevus; 2 - melanoma
|| Asymmetry || 0 - fully symmetric ||
"""
SPACES = TABS.replace("\t", "    ")


@pytest.mark.parametrize("text", [TABS, PIPES, PIPES.replace("||", "|"), SPACES, TABS.replace("\n", "\r\n")])
def test_text_extract(ph2_folder: Any, text: str) -> None:
    ph2_folder.cases()
    (ph2_folder.base / ph2.WORKBOOK).unlink()
    (ph2_folder.base / ph2.TEXT).write_bytes(b"\xef\xbb\xbf" + text.encode())
    manifest = index_folder(ph2_folder.root)
    assert manifest.faults == ()
    assert [i.label for i in manifest.items] == ["nevus", "nevus", "melanoma"]


def test_workbook_comes_first(ph2_folder: Any) -> None:
    ph2_folder.cases()
    (ph2_folder.base / ph2.TEXT).write_text("Name\tClinical Diagnosis\nIMD002\t2\n")
    assert index_folder(ph2_folder.root).items[0].label == "nevus"


def test_without_labels_the_images_count_for_segmentation(ph2_folder: Any) -> None:
    ph2_folder.cases()
    (ph2_folder.base / ph2.WORKBOOK).unlink()
    manifest = index_folder(ph2_folder.root)
    assert [(i.label, i.mask is None) for i in manifest.items] == [(None, False)] * 3
    (fault,) = manifest.faults
    assert fault.path == WORKBOOK
    assert "nor PH2_dataset.txt: without labels the images count for segmentation only" in fault.reason


def test_rows_of_the_workbook_that_cannot_be_used(ph2_folder: Any) -> None:
    ph2_folder.cases()
    ph2_folder.workbook(
        [
            ["IMD002", None, "X", None, "X", 0],
            ["IMD003", None, None, None, None, 0],
            ["IMD004", None, None, "yes", None, 0],
            ["IMD003", None, None, None, "X", 0],
            ["IMD099", None, "X", None, None, 0],
            ["80 common nevi", None, None, None, None, None],
        ]
    )
    manifest = index_folder(ph2_folder.root)
    assert [i.label for i in manifest.items] == [None, None, None]
    assert [(f.path, f.reason) for f in manifest.faults] == [
        (WORKBOOK, "line 10 (IMD099) names an image that is not there"),
        (WORKBOOK, "line 6 (IMD002) marks 2 of Common Nevus, Atypical Nevus, Melanoma, of which exactly one must be X"),
        (WORKBOOK, "line 7 (IMD003) marks 0 of Common Nevus, Atypical Nevus, Melanoma, of which exactly one must be X"),
        (WORKBOOK, "line 8 (IMD004) has 'yes' for a diagnosis, which must be X or empty"),
        (WORKBOOK, "line 9 (IMD003) repeats the image of line 7 with another label; neither is used"),
    ]


def test_rows_of_the_extract_that_cannot_be_used(ph2_folder: Any) -> None:
    ph2_folder.cases()
    (ph2_folder.base / ph2.WORKBOOK).unlink()
    (ph2_folder.base / ph2.TEXT).write_text("Image Name\tClinical Diagnosis\nIMD002\t3\nIMD003\nIMD004\t2\n")
    manifest = index_folder(ph2_folder.root)
    assert [i.label for i in manifest.items] == [None, None, "melanoma"]
    assert [(f.path, f.reason) for f in manifest.faults] == [
        (TEXT, "line 2 (IMD002) has '3' for Clinical Diagnosis, which must be 0, 1, 2"),
        (TEXT, "line 3 (IMD003) has '' for Clinical Diagnosis, which must be 0, 1, 2"),
    ]


def test_label_files_that_the_user_must_mend(ph2_folder: Any) -> None:
    ph2_folder.cases()
    workbook = ph2_folder.base / ph2.WORKBOOK
    whole = workbook.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"not a workbook"):
        workbook.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{WORKBOOK} is not a readable Excel workbook: replace or remove it"):
            index_folder(ph2_folder.root)
    for header, column in (("nothing", "Image Name"), ("Image Name", "Common Nevus")):
        book = openpyxl.Workbook()
        book.active.append([header])
        book.save(workbook)
        with pytest.raises(UserError, match=rf"{WORKBOOK} lacks the column '{column}'"):
            index_folder(ph2_folder.root)
    workbook.unlink()
    for text, column in (("nothing", "Clinical Diagnosis"), ("Number\tClinical Diagnosis\n", "Name")):
        (ph2_folder.base / ph2.TEXT).write_text(text)
        with pytest.raises(UserError, match=rf"{TEXT} lacks the column '{column}'"):
            index_folder(ph2_folder.root)


def test_hostile_workbooks_are_bounded(ph2_folder: Any) -> None:
    ph2_folder.cases()
    workbook = ph2_folder.base / ph2.WORKBOOK
    with zipfile.ZipFile(workbook, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/big.xml", b" " * (65 * 2**20))
    assert workbook.stat().st_size < 2**20
    with pytest.raises(UserError, match="unpacks to more than 64 MiB"):
        index_folder(ph2_folder.root)
    book = openpyxl.Workbook()
    for row, column in ((1, 16384), (1_048_576, 16384)):
        book.active.cell(row, column, "far out")
    book.active.cell(3, 1, "Image Name")
    for at, kind in enumerate(ph2.DIAGNOSES, 2):
        book.active.cell(3, at, kind)
    book.active.cell(4, 1, "IMD002")
    book.active.cell(4, 2, "X")
    book.save(workbook)
    assert [i.label for i in index_folder(ph2_folder.root).items] == ["nevus", None, None]


@pytest.mark.parametrize("size", ["A1:A1", "A1:XFD1048576"])
def test_a_wrong_size_in_the_workbook_does_not_matter(ph2_folder: Any, size: str) -> None:
    """Some writers state a size of the sheet that is not its own."""
    ph2_folder.cases()
    workbook = ph2_folder.base / ph2.WORKBOOK
    with zipfile.ZipFile(workbook) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    assert b'<dimension ref="A1:F8"' in parts[sheet]
    parts[sheet] = parts[sheet].replace(b'<dimension ref="A1:F8"', f'<dimension ref="{size}"'.encode())
    with zipfile.ZipFile(workbook, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    assert [i.label for i in index_folder(ph2_folder.root).items] == ["nevus", "nevus", "melanoma"]
