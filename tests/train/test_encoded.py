"""Files of every kind that the index lets through reach the trainers, with the pixels that the index saw."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mbdcnn.data import isic2017
from mbdcnn.data.index import index_folder
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError
from mbdcnn.preprocessing import ImageError, Preprocessing, decode_image, decode_mask, prepare
from train.encoded import EncodedFiles
from train.pipeline import LoadedBatch, Loader, Sample
from train.sampling import EvaluationOrder

CPU = torch.device("cpu")
SPEC = Preprocessing(64, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def picture() -> Image.Image:
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8))
    return coarse.resize((128, 96), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def deep_png(image: Image.Image) -> bytes:
    """RGB with 16 bits per channel, which Pillow reads and does not write."""
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in np.asarray(image))
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", *image.size, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def top_down(bitmap: bytes) -> bytes:
    data = bytearray(bitmap)
    start, height = struct.unpack_from("<I", data, 10)[0], struct.unpack_from("<i", data, 22)[0]
    row = (len(data) - start) // height
    data[start:] = b"".join(bitmap[start + at * row : start + (at + 1) * row] for at in reversed(range(height)))
    struct.pack_into("<i", data, 22, -height)
    return bytes(data)


def kinds() -> dict[str, bytes]:
    image = picture()
    palette, clear = image.quantize(64), image.convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.arange(128, dtype=np.uint8), (96, 1))))
    found = {f"{k}-{mode}": encoded(image.convert(mode), k) for k in ("PNG", "BMP", "JPEG") for mode in ("RGB", "L")}
    found |= {f"JPEG-exif-{o}": encoded(image, "JPEG", exif=turned(o)) for o in range(1, 9)}
    found |= {f"PNG-exif-{o}": encoded(image, "PNG", exif=turned(o)) for o in (3, 6)}
    return found | {
        "JPEG-CMYK": encoded(image.convert("CMYK"), "JPEG"),
        "JPEG-progressive": encoded(image, "JPEG", progressive=True),
        "JPEG-4:4:4": encoded(image, "JPEG", subsampling=0),
        "PNG-palette": encoded(palette, "PNG"),
        "PNG-palette-transparent": encoded(palette, "PNG", transparency=3),
        "PNG-RGBA": encoded(clear, "PNG"),
        "PNG-LA": encoded(clear.convert("LA"), "PNG"),
        "PNG-1-bit": encoded(image.convert("1", dither=Image.Dither.NONE), "PNG"),
        "PNG-16-bit-RGB": deep_png(image),
        "PNG-16-bit": encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "PNG"),
        "BMP-palette": encoded(palette, "BMP"),
        "BMP-1-bit": encoded(image.convert("1", dither=Image.Dither.NONE), "BMP"),
        "BMP-RGBA": encoded(clear, "BMP"),
        "BMP-top-down": top_down(encoded(image, "BMP")),
    }


KINDS = kinds()
REFUSED = {"PNG-16-bit": "more than 8 bits per channel"}


def load(path: Path, mask: bool = False) -> LoadedBatch:
    sample = Sample(path, (path,) if mask else ())
    (batch,) = Loader([sample], ["truth"] if mask else [], EvaluationOrder(1, 1), SPEC, None, 0, CPU).epoch(0)
    return batch


@pytest.mark.parametrize("kind", KINDS)
def test_dali_sees_what_pillow_sees_or_the_index_says_why_not(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(KINDS[kind])
    if kind in REFUSED:
        with pytest.raises(ImageError, match=REFUSED[kind]):
            decode_image(KINDS[kind])
        return
    batch = load(path, mask=True)
    expected = prepare(decode_image(KINDS[kind]), SPEC)
    levels = np.abs(batch.images[0].numpy() - expected) * 255
    assert levels.max() <= 8  # at edges from black to white; 1 or 2 elsewhere
    assert levels.mean() < 0.5
    # a mask of the kind: nearest neighbours of what Pillow cuts
    truth = decode_mask(KINDS[kind])
    rows, columns = ((np.arange(64) + 0.5) * side / 64 for side in truth.shape)
    agree = batch.planes["truth"][0, 0].numpy() == truth[rows.astype(int)[:, None], columns.astype(int)]
    assert agree.mean() > 0.99  # a pixel at half grey may fall either way


def test_names_with_spaces_and_other_alphabets(tmp_path: Path) -> None:
    images, masks = (tmp_path / f("training") for f in (isic2017.images_folder, isic2017.masks_folder))
    images.mkdir()
    masks.mkdir()
    for name in ("a lesion (1)", "Läsion ß", "病変 7", "حالة"):
        (images / f"{name}.jpg").write_bytes(KINDS["JPEG-RGB"])
        (masks / isic2017.mask_name(name)).write_bytes(KINDS["PNG-1-bit"])
    manifest = index_folder(tmp_path)
    assert (len(manifest.items), manifest.faults) == (4, ())
    again = Manifest.load(saved(manifest, tmp_path))
    for item in again.items:
        assert item.mask is not None
        assert load(again.root / item.image).images.std() > 0


def saved(manifest: Manifest, folder: Path) -> Path:
    manifest.save(folder / "manifest.json")
    return folder / "manifest.json"


def damaged(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    data = bytearray(KINDS[list(KINDS)[seed % len(KINDS)]])
    start = min(200, len(data) // 2) if seed % 3 else 0  # mostly behind the header, where damage is subtle
    for at in rng.integers(start, len(data), rng.integers(1, 20)):
        data[at] = rng.integers(0, 256)
    if rng.random() < 0.3:
        del data[rng.integers(1, len(data)) :]
    if rng.random() < 0.2:
        at = int(rng.integers(0, len(data)))
        data[at:at] = rng.bytes(rng.integers(1, 60))
    return bytes(data)


@pytest.mark.slow
def test_500_damaged_files_end_in_a_fault_or_in_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No crash, no hang, and pixels that the index saw; among these are files that DALI alone refuses."""
    folder = tmp_path / isic2017.images_folder("training")
    folder.mkdir()
    rows = []
    for seed in range(500):
        suffix = (".jpg", ".png", ".bmp")[seed % 3]  # what the name says need not be true
        (folder / f"ISIC_{seed:07}{suffix}").write_bytes(damaged(seed))
        rows.append([f"ISIC_{seed:07}", "0.0", "0.0"])
    lines = [",".join(row) for row in [list(isic2017.COLUMNS), *rows]]
    (tmp_path / isic2017.labels_file("training")).write_text("\n".join(lines) + "\n")
    manifest = index_folder(tmp_path)
    assert len(manifest.items) + len(manifest.faults) == 500
    assert 100 < len(manifest.items) < 400
    samples = [Sample(manifest.root / item.image) for item in manifest.items]
    batches = list(Loader(samples, [], EvaluationOrder(len(samples), 16), SPEC, None, 0, CPU).epoch(0))
    images = torch.cat([batch.images for batch in batches])
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(len(samples)))
    seen = [prepare(decode_image(manifest.read(item.image)), SPEC) for item in manifest.items]
    same = [np.abs(a.numpy() - b).mean() * 255 < 2 for a, b in zip(images, seen, strict=True)]
    assert np.mean(same) > 0.97  # behind the damage decoders may guess differently
    assert "DALI refuses it, Pillow reads it" in capsys.readouterr().err


def test_a_file_that_has_gone_or_broken_since_the_index_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(4)]
    for path in paths:
        path.write_bytes(KINDS["JPEG-RGB"])
    loader = Loader([Sample(path) for path in paths], [], EvaluationOrder(4, 1), SPEC, None, 0, CPU)
    assert len(list(loader.epoch(0))) == 4
    paths[2].write_bytes(KINDS["JPEG-RGB"][:200])
    with pytest.raises(UserError, match=r"2\.jpg cannot be used: not a readable JPEG.*restore"):
        list(loader.epoch(0))
    paths[2].unlink()
    with pytest.raises(UserError, match=r"2\.jpg cannot be read \(No such file or directory\).*restore"):
        list(loader.epoch(0))
    paths[2].write_bytes(KINDS["JPEG-RGB"])
    assert len(list(loader.epoch(0))) == 4


def test_only_what_dali_refuses_is_encoded_anew(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(KINDS["JPEG-RGB"])
    bad.write_bytes(next(data for data in map(damaged, range(500)) if refused_by_dali_alone(data, tmp_path)))
    files = EncodedFiles()
    assert not files.reencode_refused([good], [good], CPU)
    assert files.reencode_refused([good, bad], [], CPU)
    assert files.read(good).tobytes() == KINDS["JPEG-RGB"]
    np.testing.assert_array_equal(decode_image(files.read(bad).tobytes()), decode_image(bad.read_bytes()))


def refused_by_dali_alone(data: bytes, folder: Path) -> bool:
    try:
        decode_image(data)
    except ImageError:
        return False
    path = folder / "candidate"
    path.write_bytes(data)
    return EncodedFiles().reencode_refused([path], [], CPU)
