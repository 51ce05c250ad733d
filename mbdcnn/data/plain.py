"""The names of the plain layout, for images of one's own with classes of any name."""

from __future__ import annotations

IMAGES = "images"
MASKS = "masks"
LABELS = "labels.csv"
IMAGE_COLUMN, LABEL_COLUMN = COLUMNS = ("image", "label")
SPLIT_COLUMN = "split"
# What a mask may be called besides its image's own name.
MASK_ENDINGS = ("_segmentation", "_mask")
# What the split column may say, in any case.
SPLIT_WORDS = {
    "training": "training",
    "train": "training",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}

LAYOUT = (
    f"{IMAGES}/NAME.jpg, {MASKS}/NAME.png and {LABELS} with the columns {IMAGE_COLUMN}, {LABEL_COLUMN} "
    f"and perhaps {SPLIT_COLUMN}"
)
