"""The names that the ISIC-2017 challenge gave its folders and files."""

from __future__ import annotations

from mbdcnn.classes import SPLITS

# Further training images that have a label only.
EXTRA = "extra"
# The challenge's own word for each split, and ours for the extra images.
PARTS = dict(zip((*SPLITS, EXTRA), ("Training", "Validation", "Test_v2", "Extra"), strict=True))
IMAGE_COLUMN, MELANOMA_COLUMN, KERATOSIS_COLUMN = COLUMNS = ("image_id", "melanoma", "seborrheic_keratosis")
MASK_SUFFIX = "_segmentation"

LAYOUT = (
    "ISIC-2017_Training_Data/ISIC_0000000.jpg, "
    "ISIC-2017_Training_Part1_GroundTruth/ISIC_0000000_segmentation.png "
    "and ISIC-2017_Training_Part3_GroundTruth.csv (the same with Validation or Test_v2)"
)


def images_folder(part: str) -> str:
    """Name of the folder that holds a part's images."""
    return f"ISIC-2017_{PARTS[part]}_Data"


def masks_folder(part: str) -> str:
    """Name of the folder that holds a part's lesion masks."""
    return f"ISIC-2017_{PARTS[part]}_Part1_GroundTruth"


def labels_file(part: str) -> str:
    """Name of the CSV that holds a part's image labels."""
    return f"ISIC-2017_{PARTS[part]}_Part3_GroundTruth.csv"


def mask_name(image_id: str) -> str:
    """File name of an image's mask."""
    return f"{image_id}{MASK_SUFFIX}.png"
