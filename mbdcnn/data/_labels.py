"""Image labels from a CSV of the ISIC-2017 Part 3 form."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from mbdcnn.data.isic2017 import COLUMNS, IMAGE_COLUMN, KERATOSIS_COLUMN, MELANOMA_COLUMN
from mbdcnn.data.manifest import Fault
from mbdcnn.errors import UserError


def read_labels(path: Path, name: str) -> tuple[dict[str, str], dict[str, int], list[Fault]]:
    """Read the labels of one split.

    Args:
        path: of the CSV.
        name: what faults call the file.

    Returns:
        The label by lower-case image id; the line by lower-case image id, also for rows whose label is
        unusable; and a fault for each row that was left out.

    Raises:
        UserError: the file cannot be read or lacks a needed column.
    """
    try:
        # Spreadsheets write a byte-order mark; a byte of another encoding should cost one row, not the file.
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it readable or remove it.") from None
    rows = csv.reader(io.StringIO(text, newline=""))
    labels: dict[str, str] = {}
    lines: dict[str, int] = {}
    faults: list[Fault] = []
    try:
        header = [cell.strip().lower() for cell in next(rows, [])]
        where = {column: _position(header, column, path) for column in COLUMNS}
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            cells = {column: row[at].strip() if at < len(row) else "" for column, at in where.items()}
            image_id, key = cells[IMAGE_COLUMN], cells[IMAGE_COLUMN].lower()
            line = f"line {rows.line_num} ({image_id or 'no image_id'})"
            if key in lines:
                reason = f"{line} repeats the image of line {lines[key]}"
                if labels.get(key) != _label(cells)[0]:
                    labels.pop(key, None)
                    reason += " with another label; neither is used"
                faults.append(Fault(name, reason))
                continue
            label, wrong = _label(cells)
            if key:
                lines[key] = rows.line_num
            else:
                wrong = "names no image"
            if wrong:
                faults.append(Fault(name, f"{line} {wrong}"))
            elif label is not None:
                labels[key] = label
    except csv.Error:
        faults.append(Fault(name, f"line {rows.line_num} and those after it are not readable as CSV"))
    return labels, lines, faults


def _position(header: list[str], column: str, path: Path) -> int:
    if column not in header:
        raise UserError(f"{path} lacks the column {column!r}: its first line must name {', '.join(COLUMNS)}.")
    return header.index(column)


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
