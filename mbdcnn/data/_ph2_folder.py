"""Which files of a folder in the PH2 layout belong together."""

from __future__ import annotations

from pathlib import Path

from mbdcnn.data import ph2
from mbdcnn.data._check import Candidate, Listing
from mbdcnn.data._labels import Labels
from mbdcnn.data._listing import closed, find, find_file, list_entries, relative
from mbdcnn.data._ph2_labels import read_extract, read_workbook
from mbdcnn.data.manifest import Fault


def list_ph2(root: Path) -> Listing | None:
    """Match images, masks and labels by name; all are the split test.

    Args:
        root: the data folder: the one named PH2Dataset or the one that holds it.

    Returns:
        None when nothing of the layout is there.

    Raises:
        UserError: a label file is damaged or lacks a needed column.
    """
    base, faults = find(root, root, ph2.BASE)
    if base is None:
        base = root
    elif wrong := closed(root, base):
        return Listing(ph2.LAYOUT, [], [*faults, *wrong])
    images_at, wrong = find(root, base, ph2.IMAGES)
    faults += wrong
    if images_at is None:
        if base != root:
            faults.append(Fault(relative(root, base), f"holds no folder {ph2.IMAGES}"))
        return Listing(ph2.LAYOUT, [], faults) if faults else None
    if wrong := closed(root, images_at):
        return Listing(ph2.LAYOUT, [], [*faults, *wrong])

    files, broken, wrong = _cases(root, images_at)
    faults += wrong
    labels, wrong = _labels(root, base)
    faults += wrong
    if labels is not None:
        faults += labels.faults + labels.without_image(files.keys() | broken)
    known = labels.of if labels is not None else {}
    candidates = [Candidate("test", image, mask, known.get(key)) for key, (image, mask) in files.items()]
    return Listing(ph2.LAYOUT, candidates, faults)


def _cases(root: Path, images_at: Path) -> tuple[dict[str, tuple[Path, Path | None]], set[str], list[Fault]]:
    """Each image and its mask by lower-case id; the ids of those left out; and the faults."""
    files: dict[str, tuple[Path, Path | None]] = {}
    broken: set[str] = set()
    faults: list[Fault] = []
    for folder in list_entries(images_at):
        name, key = folder.name, folder.name.lower()
        if not ph2.is_id(name):
            faults.append(Fault(relative(root, folder), "is not named after an image as IMD002"))
            continue
        if key in files:
            faults.append(Fault(relative(root, folder), "is a second folder for its image id"))
            continue
        wrong = closed(root, folder)
        image = None
        if not wrong:
            image, wrong = _bitmap(root, folder, ph2.image_folder(name), ph2.image_name(name), needed=True)
        faults += wrong
        if image is None:
            broken.add(key)
            continue
        mask, wrong = _bitmap(root, folder, ph2.lesion_folder(name), ph2.lesion_name(name), needed=False)
        faults += wrong
        files[key] = image, mask
    return files, broken, faults


def _bitmap(root: Path, case: Path, folder_name: str, name: str, needed: bool) -> tuple[Path | None, list[Fault]]:
    """A file two folders down; that its folder is missing is a fault only if it is needed."""
    folder, faults = find(root, case, folder_name)
    if folder is None:
        if needed and not faults:
            faults.append(Fault(relative(root, case), f"holds no folder {folder_name}"))
        return None, faults
    faults += closed(root, folder)
    if faults:
        return None, faults
    path, faults = find_file(root, folder, name)
    if path is None and not faults:
        faults.append(Fault(relative(root, folder), f"holds no {name}"))
    return path, faults


def _labels(root: Path, base: Path) -> tuple[Labels | None, list[Fault]]:
    """The labels of the workbook or, without one, of the text extract."""
    faults: list[Fault] = []
    for file, read in ((ph2.WORKBOOK, read_workbook), (ph2.TEXT, read_extract)):
        path, wrong = find_file(root, base, file)
        faults += wrong
        if path is not None:
            return read(path, relative(root, path)), faults
    missing = f"is not there, nor {ph2.TEXT}: without labels the images count for segmentation only"
    return None, [*faults, Fault(relative(root, base / ph2.WORKBOOK), missing)]
