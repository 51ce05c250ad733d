"""Image labels: what every label file comes to, and the CSV of the ISIC-2017 Part 3 form."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from pathlib import Path

from mbdcnn.data._listing import image_key
from mbdcnn.data.isic2017 import COLUMNS, IMAGE_COLUMN, KERATOSIS_COLUMN, MELANOMA_COLUMN
from mbdcnn.data.manifest import Fault
from mbdcnn.errors import UserError


class Labels:
    """The labels that a file gives, collected row by row.

    Attributes:
        of: the label by image key.
        faults: one for each row that was left out.
    """

    def __init__(self, name: str) -> None:
        """Start empty; `name` is what faults call the file."""
        self.of: dict[str, str] = {}
        self.faults: list[Fault] = []
        self._name = name
        self._rows: dict[str, tuple[int, str]] = {}  # line and id as written, also of rows whose label is unusable

    def add(self, line: int, image_id: str, label: str | None, wrong: str | None) -> None:
        """Take in a row.

        Args:
            line: of the file, from 1.
            image_id: as written; empty when the row names none.
            label: that the row gives; None when it gives none.
            wrong: what is wrong with the label.
        """
        key = image_key(image_id)
        place = f"line {line} ({image_id or 'no image_id'})"
        if key in self._rows:
            reason = f"{place} repeats the image of line {self._rows[key][0]}"
            if self.of.get(key) != label:
                self.of.pop(key, None)
                reason += " with another label; neither is used"
            self.faults.append(Fault(self._name, reason))
            return
        if key:
            self._rows[key] = line, image_id
        else:
            wrong = "names no image"
        if wrong:
            self.faults.append(Fault(self._name, f"{place} {wrong}"))
        elif label is not None:
            self.of[key] = label

    def without_image(self, known: Collection[str]) -> list[Fault]:
        """The faults of rows whose image is not among the keys that are known."""
        missing = [row for key, row in self._rows.items() if key not in known]
        return [Fault(self._name, f"line {line} ({name}) names an image that is not there") for line, name in missing]


def read_labels(path: Path, name: str) -> Labels:
    """Read the labels of one split from its CSV.

    Args:
        path: of the CSV.
        name: what faults call the file.

    Raises:
        UserError: the file cannot be read or lacks a needed column.
    """
    labels = Labels(name)
    rows = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        header = [cell.strip().lower() for cell in next(rows, [])]
        where = {column: position(header, column, COLUMNS, path) for column in COLUMNS}
        for row in rows:
            if any(cell.strip() for cell in row):
                cells = {column: row[at].strip() if at < len(row) else "" for column, at in where.items()}
                labels.add(rows.line_num, cells[IMAGE_COLUMN], *_label(cells))
    except csv.Error:
        labels.faults.append(Fault(name, f"line {rows.line_num} and those after it are not readable as CSV"))
    return labels


def read_text(path: Path) -> str:
    """The text of a label file.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        # Spreadsheets write a byte-order mark; a byte of another encoding should cost one row, not the file.
        return path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it readable or remove it.") from None


def position(header: Sequence[str], column: str, columns: Sequence[str], path: Path) -> int:
    """Where a column stands in a header of lower-case names.

    Raises:
        UserError: it is not there; `columns` are all that the file needs.
    """
    if column.lower() not in header:
        raise UserError(f"{path} lacks the column {column!r}: its header must name {', '.join(columns)}.")
    return header.index(column.lower())


def _label(cells: dict[str, str]) -> tuple[str | None, str | None]:
    """The label that a row gives, or what is wrong with it."""
    marked = []
    for column in (MELANOMA_COLUMN, KERATOSIS_COLUMN):
        try:
            value = float(cells[column])
        except ValueError:
            value = -1.0
        if value not in (0.0, 1.0):
            return None, f"has {cells[column]!r} for {column}, which must be 0 or 1"
        if value:
            marked.append(column)
    if len(marked) > 1:
        return None, f"marks both {marked[0]} and {marked[1]}, of which one at most can be 1"
    return (marked[0] if marked else "nevus"), None
