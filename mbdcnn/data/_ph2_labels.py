"""Image labels of PH2, from its workbook or from the text extract that some copies carry."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mbdcnn.data import ph2
from mbdcnn.data._labels import Labels, position, read_text
from mbdcnn.errors import UserError
from mbdcnn.preprocessing import MAX_BYTES

_Row = tuple[str, ...]
_MOST_ROWS, _MOST_COLUMNS = 10_000, 200  # a cell far out would otherwise fill memory with empty ones


def read_workbook(path: Path, name: str) -> Labels:
    """Read the labels from the workbook: a legend, a header row, then one row for each image.

    Args:
        path: of the workbook.
        name: what faults call the file.

    Raises:
        UserError: it is no workbook, is too large unpacked, or lacks a needed column.
    """
    labels, where = Labels(name), None
    columns = (ph2.NAME_COLUMN, *ph2.DIAGNOSES)
    for line, row in enumerate(_workbook_rows(path), 1):
        if where is None:
            header = [cell.lower() for cell in row]
            if ph2.NAME_COLUMN.lower() in header:
                where = [position(header, column, columns, path) for column in columns]
            continue
        image_id, *marks = (row[at] if at < len(row) else "" for at in where)
        if ph2.is_id(image_id):
            labels.add(line, image_id, *_marked([mark.lower() for mark in marks]))
    if where is None:
        raise UserError(f"{path} lacks the column {ph2.NAME_COLUMN!r}: one row must name {', '.join(columns)}.")
    return labels


def read_extract(path: Path, name: str) -> Labels:
    """Read the labels from the text extract: a header row and one row for each image, between tabs or pipes.

    Args:
        path: of the text file.
        name: what faults call the file.

    Raises:
        UserError: it cannot be read or lacks a needed column.
    """
    labels, where = Labels(name), None
    columns = ("Name", ph2.DIAGNOSIS_COLUMN)
    for line, row in enumerate(_extract_rows(path), 1):
        if where is None:
            header = [cell.lower() for cell in row]
            if ph2.DIAGNOSIS_COLUMN.lower() in header:
                header = ["name" if cell == ph2.NAME_COLUMN.lower() else cell for cell in header]
                where = [position(header, column, columns, path) for column in columns]
            continue
        image_id, diagnosis = (row[at] if at < len(row) else "" for at in where)
        if ph2.is_id(image_id):  # all else is legend
            labels.add(line, image_id, *_numbered(diagnosis))
    if where is None:
        raise UserError(f"{path} lacks the column {ph2.DIAGNOSIS_COLUMN!r}: its header must name {', '.join(columns)}.")
    return labels


def _workbook_rows(path: Path) -> list[_Row]:
    """The rows of the first sheet, as text with single spaces."""
    import openpyxl

    try:
        # Shared text is read as a whole; the archive's own directory bounds what is unpacked.
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                raise UserError(f"{path} unpacks to more than {MAX_BYTES // 2**20} MiB: replace or remove it.")
        with warnings.catch_warnings():  # of formatting that it does not know
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            try:
                # Bounds of our own, as some writers state a size of the sheet that is not its own.
                cells = book.worksheets[0].iter_rows(max_row=_MOST_ROWS, max_col=_MOST_COLUMNS, values_only=True)
                return [tuple(_text(cell) for cell in row) for row in cells]
            finally:
                book.close()
    except UserError:
        raise
    except Exception:  # a damaged archive can raise anything: BadZipFile, KeyError, ParseError, ...
        raise UserError(f"{path} is not a readable Excel workbook: replace or remove it.") from None


def _extract_rows(path: Path) -> Iterator[_Row]:
    """The cells of each line; the line that names the columns shows what stands between them."""
    lines = read_text(path).splitlines()
    header = next((line for line in lines if ph2.DIAGNOSIS_COLUMN.lower() in _text(line).lower()), "")
    between = next((mark for mark in ("||", "|", "\t") if mark in header), None)
    for line in lines:
        cells = line.split(between) if between else re.split(r"\s{2,}", line)
        yield tuple(_text(cell) for cell in cells)


def _text(cell: object) -> str:
    return "" if cell is None else " ".join(str(cell).split())


def _marked(marks: list[str]) -> tuple[str | None, str | None]:
    """The label whose column is marked, or what is wrong with the marks."""
    odd = [mark for mark in marks if mark not in ("", "x")]
    if odd:
        return None, f"has {odd[0]!r} for a diagnosis, which must be X or empty"
    if marks.count("x") != 1:
        return None, f"marks {marks.count('x')} of {', '.join(ph2.DIAGNOSES)}, of which exactly one must be X"
    return ph2.LABELS[marks.index("x")], None


def _numbered(diagnosis: str) -> tuple[str | None, str | None]:
    """The label that a number stands for, or what is wrong with it."""
    numbers = [str(number) for number in range(len(ph2.LABELS))]
    if diagnosis not in numbers:
        return None, f"has {diagnosis!r} for {ph2.DIAGNOSIS_COLUMN}, which must be {', '.join(numbers)}"
    return ph2.LABELS[numbers.index(diagnosis)], None
