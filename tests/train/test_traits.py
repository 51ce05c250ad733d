"""What simple image processing tells, on pictures in which it was drawn."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from train._traits import reduced, traits_of


def skin(colour=(225, 180, 160), side=256):
    grain = np.random.default_rng(0).normal(0, 2, (side, side, 1))
    return np.clip(np.array(colour) + grain, 0, 255).astype(np.uint8)


def lesion(side=256):
    y, x = np.mgrid[:side, :side] / side - 0.5
    return np.hypot(x, y) < 0.2


def with_lesion(picture):
    return np.where(lesion()[..., None], np.uint8(70), picture)


def hairs(picture, colour=(50, 35, 30)):
    page = Image.fromarray(picture)
    pen = ImageDraw.Draw(page)
    for start in range(10, 250, 40):
        points = [(start + 25 * np.sin(t / 30), t) for t in range(0, 256, 8)]
        pen.line(points, fill=colour, width=2)
    return np.asarray(page)


def scale(picture):
    page = Image.fromarray(picture)
    pen = ImageDraw.Draw(page)
    pen.line((70, 235, 190, 229), fill=(20, 20, 20), width=3)
    for tick in range(0, 121, 12):
        y = 235 - tick * 6 / 120
        pen.line((70 + tick, y, 70 + tick, y - 6), fill=(20, 20, 20), width=2)
    return np.asarray(page)


def surround(picture):
    y, x = np.mgrid[:256, :256] - 127.5
    return np.where((np.hypot(x, y) > 140)[..., None], np.uint8(5), picture)


@pytest.mark.parametrize(
    ("add", "expected"),
    [
        (lambda picture: picture, (False, False, False)),
        (surround, (True, False, False)),
        (scale, (False, True, False)),
        (hairs, (False, False, True)),
        (lambda picture: hairs(picture, (60, 60, 150)), (False, False, False)),  # a pen's
        (lambda picture: surround(scale(hairs(picture))), (True, None, True)),  # hair that crosses a scale may hide it
    ],
)
def test_what_is_drawn_is_found_and_nothing_else(add, expected):
    found = traits_of(add(with_lesion(skin())), lesion())
    for said, there in zip((found.surround, found.scale, found.hair), expected, strict=True):
        assert there is None or said == there


def test_a_dark_lesion_in_the_corner_is_no_surround():
    picture, mask = skin(), np.zeros((256, 256), bool)
    mask[150:, 150:] = True
    picture[mask] = 30
    assert not traits_of(picture, mask).surround
    assert traits_of(picture, None).surround


def test_lightness_is_the_typology_angle_of_the_skin_alone():
    # L* 75.1, b* 15.4 (D65): atan((75.1 - 50) / 15.4)
    plain = traits_of(with_lesion(skin((225, 175, 160))), lesion()).lightness
    assert plain == pytest.approx(58.5, abs=4)
    changed = traits_of(surround(hairs(with_lesion(skin((225, 175, 160))))), lesion()).lightness
    assert changed == pytest.approx(plain, abs=2)
    colours = ((240, 205, 190), (200, 150, 120), (120, 80, 60))
    tones = [traits_of(with_lesion(skin(colour)), lesion()).lightness for colour in colours]
    assert tones == sorted(tones, reverse=True)


def test_a_picture_that_is_all_lesion_has_no_skin():
    assert traits_of(skin(), np.ones((10, 10), bool)).lightness is None


def test_the_masks_size_does_not_matter():
    picture = reduced(np.repeat(np.repeat(with_lesion(skin()), 2, 0), 3, 1))
    assert picture.shape == (256, 256, 3)
    assert traits_of(picture, lesion(300)) == traits_of(picture, lesion(300))
