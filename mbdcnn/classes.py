"""The diagnoses that mask-CN tells apart, in the order of its outputs, and what their names may be."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

CLASSES = ("nevus", "melanoma", "seborrheic_keratosis")
SPLITS = ("training", "validation", "test")

_LONGEST = 100
# What result tables and documents call their other columns and keys.
_TAKEN = {"image", "image_id", "label", "predicted", "lesion_fraction", "mask", "cam", "overlay", "error", "mean_AUC"}
_TAKEN |= {"mask_doubt", "class_doubt", "unfamiliarity"}


def in_order(names: Collection[str]) -> tuple[str, ...]:
    """The order of the outputs that tell apart these classes, however they are listed.

    Names that `CLASSES` has all stand in its order, others in the alphabet's. Without a name it is `CLASSES`.
    """
    if set(names) <= set(CLASSES):
        return tuple(name for name in CLASSES if name in names) or CLASSES
    return tuple(sorted(set(names), key=lambda name: (name.casefold(), name)))


def unusable(name: str) -> str | None:
    """Why a text cannot name a class; None when it can.

    Letters of any script, spaces and signs are fine. What is not survives no line of a file of labels (line breaks),
    would be read as something else in `config.yaml` (OmegaConf's `${` and `???`), or is a column of a result table.
    """
    if not name.isprintable() or unicodedata.lookup("REPLACEMENT CHARACTER") in name:
        return "is not plain UTF-8 text"
    if not name or name != name.strip() or len(name) > _LONGEST:
        return f"has not 1 to {_LONGEST} characters, or spaces around them"
    if "${" in name or name == "???" or name in _TAKEN:
        return "has another meaning in the results or settings"
    return None
