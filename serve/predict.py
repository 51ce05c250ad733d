"""What `mbdcnn predict` does: ask a server about files and folders, and write what it says."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mbdcnn.errors import UserError
from mbdcnn.preprocessing import ImageError, decode_image
from serve.client import Client, ImageRefusedError, Result
from serve.pictures import cam_picture, overlay_picture

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
TABLE = "predictions.csv"


def predict_files(
    url: str,
    paths: Sequence[str | Path],
    out: Path | None = None,
    *,
    in_flight: int = 4,
    deadline: float = 60.0,
    say: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Ask a server about images; write masks, activation maps, overlays and a table.

    Args:
        url: `HOST:PORT` of the server's gRPC address.
        paths: image files, and folders of JPEG, PNG and BMP files (not those in their sub-folders).
        out: folder for `<stem>_mask.png`, `<stem>_cam.png`, `<stem>_overlay.png` and `predictions.csv`;
            nothing is written when None.
        in_flight: images on the way at a time.
        deadline: seconds that one image may take.
        say: told one line about each image as soon as it is answered or refused; standard error when None.

    Returns:
        One JSON-able entry per image, in order: `image`, `label`, `probabilities` by class, `lesion_fraction`
        (of the image's area), with `out` the paths `mask`, `cam`, `overlay`; or only `image` and `error`. The
        caller ends with code 2 when an entry has an `error`.

    Raises:
        UserError: nothing to ask about, the server is absent or cannot answer, or `out` cannot be written.
            What was answered before is in the table.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    images = list_images(paths)
    stems = _unique_stems(images)
    entries: list[dict[str, Any]] = []
    classes: tuple[str, ...] = ()
    if out is not None:
        _make_folder(out, paths)
    try:
        with Client(url, deadline) as client:
            classes = client.classes()
            for image, stem, result in zip(images, stems, client.predict_many(images, in_flight), strict=True):
                entry = _entry(image, stem, result, out)
                entries.append(entry)
                say(describe(entry))
    finally:
        if out is not None and entries:
            _write_table(entries, classes, out)
    return entries


def describe(entry: dict[str, Any]) -> str:
    """One line about an entry of `predict_files`, for people."""
    if "error" in entry:
        return str(entry["error"])
    chances = ", ".join(f"{name} {p:.1%}" for name, p in entry["probabilities"].items())
    lesion = f"lesion on {entry['lesion_fraction']:.1%} of the image"
    return f"{entry['image']}: {entry['label']} ({chances}); {lesion}"


def list_images(paths: Iterable[str | Path]) -> list[Path]:
    """The image files that a command line names, folders opened, without repetition.

    Raises:
        UserError: no path at all, or a folder without images.
    """
    images: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            inside = [p for p in sorted(path.iterdir()) if p.suffix.lower() in SUFFIXES and p.is_file()]
            if not inside:
                raise UserError(f"{path} holds no images ({', '.join(SUFFIXES)}); name a folder that does.")
            images |= dict.fromkeys(inside)
        else:
            images[path] = None  # a missing file is that file's own error, the others are answered
    if not images:
        raise UserError("There is nothing to predict; name image files or folders.")
    return list(images)


def _entry(image: Path, stem: str, result: Result | UserError, out: Path | None) -> dict[str, Any]:
    if isinstance(result, UserError):
        return {"image": str(image), "error": str(result)}
    entry: dict[str, Any] = {
        "image": str(image),
        "label": result.label,
        "probabilities": result.probabilities,
        "lesion_fraction": float((result.mask > 0).mean()),
    }
    if out is not None:
        try:
            entry |= _write_pictures(image, stem, result, out)
        except ImageRefusedError as error:
            return {"image": str(image), "error": str(error)}
    return entry


def _write_pictures(image: Path, stem: str, result: Result, out: Path) -> dict[str, str]:
    try:
        pixels = decode_image(image.read_bytes())
    except (OSError, ImageError):
        raise ImageRefusedError(f"{image}: changed while it was being asked about; ask again.") from None
    if pixels.shape[:2] != result.mask.shape:
        raise ImageRefusedError(f"{image}: changed while it was being asked about; ask again.")
    pictures = {
        "mask": Image.fromarray(result.mask),
        "cam": cam_picture(result.cam, *result.mask.shape),
        "overlay": overlay_picture(pixels, result.mask, result.cam),
    }
    files = {kind: out / f"{stem}_{kind}.png" for kind in pictures}
    for kind, picture in pictures.items():
        try:
            picture.save(files[kind])
        except OSError as error:
            raise UserError(
                f"{files[kind]} cannot be written ({error.strerror or error}); make room or change --out."
            ) from None
    return {kind: str(file) for kind, file in files.items()}


def _unique_stems(images: Sequence[Path]) -> list[str]:
    """A name for each image's pictures; images of the same name get -2, -3, ..."""
    taken: set[str] = set()
    stems = []
    for image in images:
        stem, number = image.stem, 1
        while stem in taken:
            number += 1
            stem = f"{image.stem}-{number}"
        taken.add(stem)
        stems.append(stem)
    return stems


def _make_folder(out: Path, paths: Iterable[str | Path]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be made a folder ({error.strerror}); change --out.") from None
    if any(Path(p).is_dir() and out.samefile(p) for p in paths):
        raise UserError(f"{out} is also a folder of images, and its masks would be images next time; change --out.")


def _write_table(entries: Sequence[dict[str, Any]], classes: Sequence[str], out: Path) -> None:
    columns = ("image", "label", *classes, "lesion_fraction", "mask", "cam", "overlay", "error")
    try:
        with (out / TABLE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows({**entry, **entry.get("probabilities", {})} for entry in entries)
    except OSError as error:
        raise UserError(f"{out / TABLE} cannot be written ({error.strerror}); make room or change --out.") from None
