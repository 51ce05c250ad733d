from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from mbdcnn.data import isic2017
from mbdcnn.data.index import index_folder, summarise

IMAGES = isic2017.images_folder("training")
MASKS = isic2017.masks_folder("training")
LABELS = isic2017.labels_file("training")


@pytest.mark.parametrize("seed", range(60))
def test_no_damage_raises(folder: Any, seed: int) -> None:
    """Random damage to one image, mask and CSV: at worst they are left out."""
    folder.pairs()
    rng = np.random.default_rng(seed)
    paths = [folder.root / IMAGES / "ISIC_0000002.jpg", folder.root / MASKS / "ISIC_0000003_segmentation.png"]
    if seed % 3 == 0:  # a BMP or PNG whose name says JPEG
        Image.open(paths[0]).save(paths[0], format="BMP" if seed % 2 else "PNG")
    for path in [*paths, folder.root / LABELS]:
        data = bytearray(path.read_bytes())
        keep = 42 if path.suffix == ".csv" else 0  # without its header the CSV is the user's to mend
        for at in rng.integers(keep, len(data), rng.integers(1, 30)):
            data[at] = rng.integers(0, 256)
        if rng.random() < 0.4:
            del data[rng.integers(keep, len(data)) :]
        if rng.random() < 0.3:
            at = rng.integers(keep, len(data) + 1)
            data[at:at] = rng.bytes(rng.integers(1, 50))
        path.write_bytes(bytes(data))
    manifest = index_folder(folder.root)
    usable = manifest.items[0]
    assert usable.image_id == "ISIC_0000001"
    assert usable.mask is not None
    assert all(fault.reason for fault in manifest.faults)
    summarise(manifest)
