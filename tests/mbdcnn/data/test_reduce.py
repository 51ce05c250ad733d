"""What becomes of one image, and of one mask."""

import io

import numpy as np
import pytest
from PIL import Image

from mbdcnn.data._reduce import reduce_image, reduce_mask
from mbdcnn.data.sample import draw
from mbdcnn.preprocessing import decode_image

SIDE = 64


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(size: tuple[int, int]) -> Image.Image:
    """Smooth colours that differ in every corner."""
    y, x = np.mgrid[: size[1], : size[0]] / np.array([[[size[1]]], [[size[0]]]])
    return Image.fromarray((np.stack([x, y, x * y], -1) * 255).astype(np.uint8))


def turned(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    return draw("training", 1, size=1600)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize(
    ("size", "expected"), [((200, 150), (85, 64)), ((150, 200), (64, 85)), ((900, 65), (886, 64)), ((65, 65), (64, 64))]
)
def test_the_short_side_is_reduced_and_the_aspect_ratio_stays(
    kind: str, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    suffix, data = reduce_image(encoded(picture(size), kind, **({"quality": 95} if kind == "JPEG" else {})), SIDE)
    copy = Image.open(io.BytesIO(data))
    assert (suffix, copy.format, copy.mode, copy.size) == (".jpg", "JPEG", "RGB", expected)
    whole = picture(size).resize(expected, Image.Resampling.BOX)
    assert np.abs(np.asarray(copy, float) - np.asarray(whole, float)).mean() < 2
    assert Image.open(io.BytesIO(reduce_mask(encoded(picture(size), "PNG"), SIDE))).size == expected


def test_a_copy_is_upright_in_whole_colour_and_says_nothing_of_its_origin() -> None:
    exif = turned()
    exif[0x010F] = "camera"
    original = encoded(picture((300, 200)), "JPEG", exif=exif, icc_profile=b"profile", comment=b"patient")
    _, data = reduce_image(original, SIDE)
    copy = Image.open(io.BytesIO(data))
    assert copy.size == (64, 96)
    assert not copy.getexif()
    assert not copy.info.keys() & {"icc_profile", "comment", "exif"}
    assert [layer[1:3] for layer in copy.layer] == [(1, 1)] * 3
    upright = Image.fromarray(decode_image(original)).resize(copy.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(copy, float) - np.asarray(upright, float)).mean() < 2


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1"])
def test_every_kind_of_pixel_becomes_rgb(mode: str) -> None:
    kind = "JPEG" if mode in ("L", "CMYK") else "PNG"
    original = encoded(picture((200, 150)).convert(mode), kind)
    copy = Image.open(io.BytesIO(reduce_image(original, SIDE)[1]))
    whole = Image.fromarray(decode_image(original)).resize((85, 64), Image.Resampling.BOX)
    assert copy.mode == "RGB"
    # dither has an edge at every pixel, where filters and JPEG differ
    assert np.abs(np.asarray(copy, float) - np.asarray(whole, float)).mean() < (20 if mode in "P1" else 2)


def test_a_small_ordinary_jpeg_stays_byte_for_byte() -> None:
    for size in ((64, 64), (40, 30), (500, 64)):
        original = encoded(picture(size), "JPEG", quality=70)
        assert reduce_image(original, SIDE) == (".jpg", original)


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "PNG", {}),
        ("RGB", "BMP", {}),
        ("RGBA", "PNG", {}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True}),
        ("RGB", "JPEG", {"exif": turned()}),
        ("RGB", "JPEG", {"keep_rgb": True}),
    ],
)
def test_other_small_images_keep_every_pixel(mode: str, kind: str, options: dict[str, object]) -> None:
    original = encoded(picture((60, 40)).convert(mode), kind, **options)
    suffix, data = reduce_image(original, SIDE)
    assert (suffix, Image.open(io.BytesIO(data)).format) == (".png", "PNG")
    np.testing.assert_array_equal(decode_image(data), decode_image(original))


def test_decoding_the_quick_way_costs_little_beside_what_the_compression_does(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    original = encoded(Image.fromarray(drawn[0]), "JPEG", quality=92)
    whole = decode_image(original)
    assert min(whole.shape[:2]) >= 4 * 240  # or there would be nothing quick about it
    exact = Image.fromarray(whole)
    exact = exact.resize((round(exact.width * 240 / exact.height), 240), Image.Resampling.LANCZOS)
    quick = reduce_image(original, 240)[1]
    slow = encoded(exact, "JPEG", quality=95, subsampling=0)
    quick_error, slow_error = (
        np.abs(decode_image(data).astype(float) - np.asarray(exact, float)) for data in (quick, slow)
    )
    assert quick_error.mean() < slow_error.mean() + 0.1
    assert quick_error.max() < slow_error.max() + 3


@pytest.mark.parametrize("mode", ["L", "1", "RGB"])
def test_a_mask_stays_binary_and_close_to_its_original(drawn: tuple[np.ndarray, np.ndarray], mode: str) -> None:
    truth = drawn[1]
    original = encoded(Image.fromarray(truth.astype(np.uint8) * 255).convert(mode), "PNG")
    copy = Image.open(io.BytesIO(reduce_mask(original, 512)))
    assert (copy.format, copy.mode, min(copy.size)) == ("PNG", "L", 512)
    assert set(np.unique(np.asarray(copy))) == {0, 255}
    back = np.asarray(copy.resize(truth.shape[::-1], Image.Resampling.NEAREST)) > 127
    assert (back & truth).sum() / (back | truth).sum() > 0.99
    small = Image.open(io.BytesIO(reduce_mask(original, 5000)))
    np.testing.assert_array_equal(np.asarray(small) == 255, truth)


def test_a_mask_pixel_is_lesion_where_at_least_half_of_it_was() -> None:
    plane = np.zeros((128, 128), np.uint8)
    plane[0, 0] = plane[2, 2] = plane[2, 3] = plane[4, 4] = plane[4, 5] = plane[5, 5] = 255
    copy = np.asarray(Image.open(io.BytesIO(reduce_mask(encoded(Image.fromarray(plane), "PNG"), SIDE))))
    assert np.argwhere(copy).tolist() == [[1, 1], [2, 2]]
