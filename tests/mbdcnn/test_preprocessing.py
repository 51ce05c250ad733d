"""Decoding and the way from an image to a network input and back."""

import io

import numpy as np
import pytest
from PIL import Image

from mbdcnn.preprocessing import ImageError, Preprocessing, decode_image, decode_mask, prepare, restore


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("PNG", "RGBA"), ("BMP", "RGB")]
)
def test_formats_and_modes_decode_to_rgb(kind: str, mode: str) -> None:
    image = decode_image(encoded(picture(mode), kind))
    assert image.shape == (30, 40, 3)
    assert image.dtype == np.uint8


def test_exif_orientation_is_honoured() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to display
    assert decode_image(encoded(picture(), "JPEG", exif=exif)).shape == (40, 30, 3)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "empty"),
        (b"just a text file that somebody called .jpg", "not a readable JPEG, PNG or BMP image"),
        (encoded(picture(), "GIF"), "not a readable"),
        (encoded(picture())[:-200], "damaged or truncated"),
        (encoded(picture(), "JPEG")[:300], "not a readable|damaged or truncated"),
    ],
)
def test_what_cannot_be_decoded_says_why(data: bytes, sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence):
        decode_image(data)


def test_more_than_eight_bits_are_refused() -> None:
    deep = Image.fromarray(np.full((8, 8), 40000, np.uint16))
    for decode in (decode_image, decode_mask):
        with pytest.raises(ImageError, match="more than 8 bits per channel"):
            decode(encoded(deep))


def test_size_is_checked_before_decoding() -> None:
    with pytest.raises(ImageError, match="40 x 30 pixels, more than 1000"):
        decode_image(encoded(picture()), max_pixels=1000)


def test_prepare_normalises_and_antialiases() -> None:
    spec = Preprocessing(32, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2))
    grey = prepare(np.full((90, 50, 3), 204, np.uint8), spec)
    assert grey.shape == (3, 32, 32)
    assert grey.dtype == np.float32
    np.testing.assert_allclose(grey[:, 5, 5], (0.8 - np.array(spec.mean)) / np.array(spec.std), rtol=1e-5)
    checkers = (np.indices((320, 320)).sum(0) % 2 * 255).astype(np.uint8)
    fine = prepare(np.repeat(checkers[..., None], 3, 2), Preprocessing(32))
    assert np.abs(fine).max() < 0.02  # a one-pixel pattern averages to grey


def test_restore_brings_a_map_to_native_size() -> None:
    plane = np.zeros((32, 32), np.float32)
    plane[:, 16:] = 1
    native = restore(plane, 60, 100)
    assert native.shape == (60, 100)
    assert native[:, :40].max() == 0
    assert native[:, 60:].min() == 1


def test_masks_of_any_depth() -> None:
    truth = np.zeros((20, 30), bool)
    truth[5:10, 8:20] = True
    grey = Image.fromarray((truth * 255).astype(np.uint8))
    for mask in (grey, grey.convert("1"), grey.convert("RGB"), grey.convert("P")):
        np.testing.assert_array_equal(decode_mask(encoded(mask)), truth)


def test_a_bitmap_that_pillow_misreads_is_refused() -> None:
    """Eight bits a pixel but a palette of black and white alone: Pillow takes it for one bit a pixel."""
    mask = Image.fromarray(np.pad(np.ones((8, 8), np.uint8), 4), "P")
    mask.putpalette([0, 0, 0, 255, 255, 255])
    with pytest.raises(ImageError, match="save it as PNG"):
        decode_mask(encoded(mask, "BMP"))
