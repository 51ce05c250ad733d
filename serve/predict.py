"""What `mbdcnn predict` does: ask a server about files and folders, and write what it says."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from mbdcnn.errors import UserError
from mbdcnn.files import replacing
from mbdcnn.preprocessing import ImageError, decode_image
from serve.client import Answer, Client, ImageRefusedError, Result, image_files
from serve.client._result import DOUBTS
from serve.pictures import cam_picture, overlay_picture

TABLE = "predictions.csv"
_KEEP_SECONDS = 10.0


def predict_files(
    client: Client,
    paths: Sequence[str | Path],
    out: Path | None = None,
    *,
    in_flight: int = 4,
    say: Callable[[str], None] | None = None,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Ask a server about images; write masks, activation maps, overlays and a table.

    Each file appears whole or not at all, and replaces what an earlier call left under its name. The table is also
    written every few seconds, and when the work is stopped.

    Args:
        client: of the server.
        paths: image files, and folders of JPEG, PNG and BMP files (not those in their sub-folders).
        out: folder for `<stem>_mask.png`, `<stem>_cam.png`, `<stem>_overlay.png` and `predictions.csv`;
            nothing is written when None.
        in_flight: images on the way at a time.
        say: told one line about each image as soon as it is answered or refused; standard error when None.
        progress: show a bar on standard error.

    Returns:
        One JSON-able entry per image, in order: `image`, `label`, `probabilities` by class, `lesion_fraction`
        (of the image's area), `mask_doubt`, `class_doubt`, `unfamiliarity` (None where not measured), with `out` the
        paths `mask`, `cam`, `overlay`; or only `image` and `error`. The
        caller ends with code 2 when an entry has an `error`.

    Raises:
        UserError: nothing to ask about, the server is absent or cannot answer, or `out` cannot be written.
            What was answered before is in the table.
    """
    say = say or (lambda line: tqdm.write(line, file=sys.stderr))
    images = list_images(paths)
    stems = _unique_stems(images)
    entries: list[dict[str, Any]] = []
    if out is not None:
        _make_folder(out, paths)
    classes = client.classes()
    outputs = ("PROBABILITIES", "MASK_PNG", *DOUBTS, *(() if out is None else ("CAM",)))
    answers = client.stream(images, outputs=outputs, in_flight=in_flight)
    kept = time.monotonic()
    try:
        with tqdm(total=len(images), desc="predict", unit="image", leave=False, disable=not progress) as bar:
            for image, stem, answer in zip(images, stems, answers, strict=True):
                entries.append(_entry(image, stem, answer, out))
                say(describe(entries[-1]))
                bar.update()
                if out is not None and time.monotonic() - kept > _KEEP_SECONDS:
                    _write_table(entries, classes, out)
                    kept = time.monotonic()
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
    strange = (entry["unfamiliarity"] or 0) > 1
    warning = "; unlike the images that the networks learnt from, so do not rely on this" if strange else ""
    return f"{entry['image']}: {entry['label']} ({chances}); {lesion}{warning}"


def list_images(paths: Iterable[str | Path]) -> list[Path]:
    """The image files that a command line names, folders opened, without repetition.

    Raises:
        UserError: no path at all, a folder without images, or nothing but files that are not there.
    """
    images: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            images |= dict.fromkeys(image_files(path))
        else:
            images[path] = None  # a missing file is that file's own error, the others are answered
    if not images:
        raise UserError("There is nothing to predict; name image files or folders.")
    if not any(image.exists() for image in images):
        raise UserError(f"{next(iter(images))}: there is no such file; name image files or folders.")
    return list(images)


def _entry(image: Path, stem: str, answer: Answer, out: Path | None) -> dict[str, Any]:
    if answer.result is None:
        return {"image": str(image), "error": str(answer.error)}
    result = answer.result
    entry: dict[str, Any] = {
        "image": str(image),
        "label": result.label,
        "probabilities": result.probabilities,
        "lesion_fraction": float((result.mask > 0).mean()),
        "mask_doubt": result.mask_doubt,
        "class_doubt": result.class_doubt,
        "unfamiliarity": result.unfamiliarity,
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
    encoded = {
        "mask": result.mask_png,
        "cam": _png(cam_picture(result.cam, *result.mask.shape)),
        "overlay": _png(overlay_picture(pixels, result.mask, result.cam)),
    }
    files = {kind: out / f"{stem}_{kind}.png" for kind in encoded}
    for kind, data in encoded.items():
        _write(files[kind], data)
    return {kind: str(file) for kind, file in files.items()}


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _write(file: Path, data: bytes) -> None:
    try:
        with replacing(file) as part:
            part.write_bytes(data)
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror or error}); make room or change --out.") from None


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
    found = (name for entry in entries for name in entry.get("probabilities", {}))
    named = dict.fromkeys([*classes, *found])  # a server may take a version with other classes meanwhile
    columns = (
        "image",
        "label",
        *named,
        "lesion_fraction",
        *(name.lower() for name in DOUBTS),
        "mask",
        "cam",
        "overlay",
        "error",
    )
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows({**entry, **entry.get("probabilities", {})} for entry in entries)
    _write(out / TABLE, text.getvalue().encode())
