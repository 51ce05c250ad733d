"""The labels and splits that `labels.csv` of the plain layout gives."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from mbdcnn.classes import SPLITS, unusable
from mbdcnn.data._labels import Labels, position, read_text
from mbdcnn.data._listing import image_key, without_suffix
from mbdcnn.data.manifest import Fault
from mbdcnn.data.plain import COLUMNS, IMAGE_COLUMN, LABEL_COLUMN, SPLIT_COLUMN, SPLIT_WORDS


@dataclass
class PlainLabels:
    """What the file says of each image.

    Attributes:
        labels: the classes and the faults.
        splits: by image key; None where the row leaves it open.
        left_out: keys of images whose split is unusable: drawing one could train on an image that is kept for a test.
    """

    labels: Labels
    splits: dict[str, str | None] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)


def read_plain_labels(path: Path, name: str, images: Collection[str]) -> PlainLabels:
    """Read `labels.csv`.

    An image is named by its file's name, with or without the suffix. A class has the name that the file gives it;
    names that differ in letters' case alone are one class, spelled as it is first.

    Args:
        path: of the CSV.
        name: what faults call the file.
        images: keys of the images that there are.

    Raises:
        UserError: the file cannot be read or lacks a needed column.
    """
    read = PlainLabels(Labels(name))
    spelled: dict[str, str] = {}
    rows = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        header = [cell.strip().lower() for cell in next(rows, [])]
        where = {column: position(header, column, COLUMNS, path) for column in COLUMNS}
        if SPLIT_COLUMN in header:
            where[SPLIT_COLUMN] = header.index(SPLIT_COLUMN)
        for row in rows:
            if any(cell.strip() for cell in row):
                cells = {column: row[at].strip() if at < len(row) else "" for column, at in where.items()}
                image_id = cells[IMAGE_COLUMN]
                if image_key(image_id) not in images:
                    image_id = without_suffix(image_id)
                text = unicodedata.normalize("NFC", cells[LABEL_COLUMN])
                wrong = unusable(text) if text else None
                label = spelled.setdefault(text.casefold(), text) if text and wrong is None else None
                read.labels.add(rows.line_num, image_id, label, wrong and f"has a label that {wrong}: {text!r}")
                _take_split(read, name, rows.line_num, image_id, cells.get(SPLIT_COLUMN, ""))
    except csv.Error:
        read.labels.faults.append(Fault(name, f"line {rows.line_num} and those after it are not readable as CSV"))
    return read


def _take_split(read: PlainLabels, name: str, line: int, image_id: str, word: str) -> None:
    key = image_key(image_id)
    split = SPLIT_WORDS.get(word.lower())
    reason = None
    if word and split is None:
        reason = f"has the split {word!r}, which is none of {', '.join(SPLITS)}"
    elif read.splits.setdefault(key, split) != split:
        reason = "gives another split than the line before it"
    if reason and key:
        read.left_out.add(key)
        read.labels.faults.append(Fault(name, f"line {line} ({image_id}) {reason}; the image is left out"))
