"""The names that PH2 gives its folders and files, and the diagnoses that it tells apart."""

from __future__ import annotations

import re

BASE = "PH2Dataset"
IMAGES = "PH2 Dataset images"
WORKBOOK = "PH2_dataset.xlsx"
TEXT = "PH2_dataset.txt"

NAME_COLUMN = "Image Name"
# The workbook marks one of these; both kinds of nevus are one class here.
DIAGNOSES = {"Common Nevus": "nevus", "Atypical Nevus": "nevus", "Melanoma": "melanoma"}
# The text extract numbers them instead, in the same order.
DIAGNOSIS_COLUMN = "Clinical Diagnosis"
LABELS = tuple(DIAGNOSES.values())

_ID = re.compile(r"IMD[0-9]+", re.IGNORECASE)

LAYOUT = (
    f"{BASE}/{IMAGES}/IMD002/IMD002_Dermoscopic_Image/IMD002.bmp, IMD002_lesion/IMD002_lesion.bmp beside that "
    f"folder, and {BASE}/{WORKBOOK} or {TEXT}"
)


def is_id(name: str) -> bool:
    """Whether a name is an image's, for example IMD002."""
    return _ID.fullmatch(name) is not None


def image_folder(image_id: str) -> str:
    """Name of the folder that holds an image, in the folder named after it."""
    return f"{image_id}_Dermoscopic_Image"


def lesion_folder(image_id: str) -> str:
    """Name of the folder that holds an image's lesion mask."""
    return f"{image_id}_lesion"


def image_name(image_id: str) -> str:
    """File name of an image."""
    return f"{image_id}.bmp"


def lesion_name(image_id: str) -> str:
    """File name of an image's lesion mask."""
    return f"{image_id}_lesion.bmp"
