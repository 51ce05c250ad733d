"""The verbs on data sets."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from mbdcnn.classes import SPLITS
from mbdcnn.cli._shared import FOLDER, answer, json_option, warn_of_leakage
from mbdcnn.errors import UserError


@click.group()
def data() -> None:
    """Draw a sample set; index, check, prepare or show a folder of images."""


@data.command("sample")
@click.argument("folder", type=FOLDER)
@click.option("--training", default=240, show_default=True, help="Images of the training split.")
@click.option("--validation", default=60, show_default=True, help="Images of the validation split.")
@click.option("--test", default=60, show_default=True, help="Images of the test split.")
@click.option("--extra", default=0, show_default=True, help="Further training images with a label and no mask.")
@click.option("--seed", default=2017, show_default=True, help="Same seed, same pictures.")
@json_option
def data_sample(folder: Path, training: int, validation: int, test: int, extra: int, seed: int, as_json: bool) -> None:
    """Draw a synthetic dermoscopy set in the ISIC-2017 layout."""
    from mbdcnn.data.sample import write_sample

    counts = {"training": training, "validation": validation, "test": test}
    write_sample(folder, counts, seed=seed, progress=sys.stderr.isatty(), extra=extra)
    text = f"{sum(counts.values()) + extra} images in {folder}; look at them, then: mbdcnn data index {folder}"
    answer({"folder": str(folder), "seed": seed, "images": counts, "extra": extra}, as_json, text)


@data.command("index")
@click.argument("folder", type=FOLDER)
@click.option("--out", type=FOLDER, help="The manifest's file.  [default: FOLDER/manifest.json]")
@json_option
def data_index(folder: Path, out: Path | None, as_json: bool) -> None:
    """Read and check a folder in the ISIC-2017, PH2 or plain layout; write its manifest."""
    from mbdcnn.data.index import index_folder, summarise
    from mbdcnn.data.leakage import same_files

    manifest = index_folder(folder, progress=sys.stderr.isatty())
    out = out or folder / "manifest.json"
    try:
        manifest.save(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); name another file with --out.") from None
    leaks = [pair.document() for pair in same_files(manifest) if pair.leaks]
    warn_of_leakage(leaks, f"what `mbdcnn data check {folder}` writes")
    lines = [f"{f.path}: {f.reason}" for f in manifest.faults]
    if manifest.drawn_splits:
        shares = "about 70 % are for training, 15 % for validation and 15 % for the test, drawn one by one"
        mend = "where several show one patient or lesion, give labels.csv a column split"
        lines += [f"{manifest.drawn_splits} images come without a split: {shares}; {mend}"]
    lines += [f"{len(manifest.items)} usable images, {len(manifest.faults)} faults; manifest in {out}"]
    answer(summarise(manifest) | {"manifest": str(out)}, as_json, "\n".join(lines))


@data.command("show")
@click.argument("folder", type=FOLDER)
@click.argument("settings", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--out", type=FOLDER, help="The picture's file.  [default: <data>-augmented.png]")
@click.option("--preset", "preset_name", default="compact", show_default=True, help="Starting point of the settings.")
@click.option("--split", type=click.Choice(SPLITS), default="training", show_default=True)
@click.option("--images", default=6, show_default=True, help="Lines of the sheet; the classes take turns.")
@click.option("--variants", default=5, show_default=True, help="Augmented copies of each image.")
@json_option
def data_show(
    folder: Path,
    settings: tuple[str, ...],
    out: Path | None,
    preset_name: str,
    split: str,
    images: int,
    variants: int,
    as_json: bool,
) -> None:
    """Draw augmented images with their masks, as the trainers get them, such as with augmentation.rotation_deg=90."""
    from mbdcnn.config import override
    from mbdcnn.data.index import index_folder
    from mbdcnn.presets import preset
    from train.show import write_sheet

    config = override(preset(preset_name), settings)
    out = out or Path(f"{folder.resolve().name}-augmented.png")
    count = write_sheet(out, index_folder(folder, sys.stderr.isatty()), config, split, images, variants)
    document = {"picture": str(out), "split": split, "images": count, "variants": variants, "seed": config.seed}
    answer(document, as_json, f"{count} images, {variants} variants of each: {out}")


@data.command("prepare")
@click.argument("folder", type=FOLDER)
@click.option("--out", type=FOLDER, help="Folder of the copies.  [default: FOLDER/prepared]")
@click.option("--short-side", default=512, show_default=True, help="Of the copies, in pixels; nothing is enlarged.")
@json_option
def data_prepare(folder: Path, out: Path | None, short_side: int, as_json: bool) -> None:
    """Write reduced copies of images and masks, which are decoded much faster in training.

    A second call makes only what is not there yet.
    """
    from mbdcnn.data.index import index_folder
    from mbdcnn.data.prepared import FOLDER, prepare

    show = sys.stderr.isatty()
    done = prepare(index_folder(folder, show), out or folder / FOLDER, short_side, show)
    text = (
        f"{done['images']} images and {done['masks']} masks in {done['folder']}, {done['already_there']} of them from "
        f"before; {done['bytes_after'] / 1e6:.1f} MB instead of {done['bytes_before'] / 1e6:.1f} MB"
    )
    answer(done, as_json, text)


@data.command("check")
@click.argument("folder", type=FOLDER)
@click.option("--out", type=FOLDER, help="Folder of fingerprint.json and fingerprint.html.  [default: FOLDER]")
@json_option
def data_check(folder: Path, out: Path | None, as_json: bool) -> None:
    """Look at every image: counts, sizes, lesion areas, colours, duplicates, and leakage between splits."""
    from mbdcnn.data.fingerprint import describe, save, survey
    from mbdcnn.data.fingerprint_page import write_fingerprint_page
    from mbdcnn.data.index import index_folder
    from mbdcnn.layout import FINGERPRINT

    progress = sys.stderr.isatty()
    out = out or folder
    manifest = index_folder(folder, progress)
    _require_writable(out)
    glances = survey(manifest, progress)
    document = describe(manifest, glances, progress)
    page = out / FINGERPRINT.replace(".json", ".html")
    try:
        save(document, out / FINGERPRINT)
        write_fingerprint_page(page, document, manifest, glances)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written ({error.strerror}); name a folder with --out.") from None
    warn_of_leakage(document["leakage"], str(out / FINGERPRINT))
    twins = len(document["pairs"]) - len(document["leakage"])
    summary = f"{document['images']} images, {len(document['faults'])} faults, {len(document['leakage'])} pairs that"
    lines = [*document["warnings"], f"{summary} leak, {twins} within a split; page in {page}"]
    answer(document, as_json, "\n".join(lines))


def _require_writable(out: Path) -> None:
    """Refuse a folder that nothing can be written to, before the minutes that a large data set takes."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); name another folder with --out.") from None
