"""Copies are found however they were made; other pictures are not taken for copies."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mbdcnn.data._alike import VIEWS, find_alike, opposite, thumbnail, turned
from mbdcnn.data._registration import detail, likeness
from mbdcnn.data._threads import in_threads
from mbdcnn.data.sample import draw

COUNT = 12


def jpeg(image: Image.Image, quality: int = 85) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def cropped(image: Image.Image, share: float) -> Image.Image:
    """The middle, as a share of each side."""
    left, top = image.width * (1 - share) / 2, image.height * (1 - share) / 2
    return image.crop((round(left), round(top), round(image.width - left), round(image.height - top)))


def warmer(image: Image.Image) -> Image.Image:
    tinted = np.asarray(image) * np.array([1.08, 1.0, 0.92])
    return Image.fromarray(np.clip(tinted, 0, 255).astype(np.uint8))


def under_a_lens(image: Image.Image) -> Image.Image:
    """As through a round lens at the middle, black outside."""
    height, width = image.height, image.width
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - height / 2, x - width / 2) / height
    light = np.clip((0.45 - distance) / 0.03, 0.03, 1)
    return Image.fromarray((np.asarray(image) * light[..., None]).astype(np.uint8))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "recompressed": lambda image: jpeg(image, 50),
    "half the size": lambda image: jpeg(image.resize((image.width // 2, image.height // 2))),
    "cropped by 5 %": lambda image: jpeg(cropped(image, 0.95)),
    "cropped by 10 %": lambda image: jpeg(cropped(image, 0.9)),
    "brighter": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(1.15)),
    "darker": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(0.85)),
    "other colours": lambda image: jpeg(warmer(image)),
    "mirrored": lambda image: jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "turned": lambda image: jpeg(image.transpose(Image.Transpose.ROTATE_90)),
    "turned, cropped, recompressed": lambda image: jpeg(cropped(image.transpose(Image.Transpose.ROTATE_270), 0.9), 50),
}


@pytest.fixture(scope="module")
def drawn() -> list[Image.Image]:
    return [Image.fromarray(draw("training", number)[0]) for number in range(COUNT)]


def thumbnails(images: list[Image.Image]) -> np.ndarray:
    return np.stack([thumbnail(np.asarray(image)) for image in images])


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_and_nothing_else(drawn: list[Image.Image], kind: str) -> None:
    copies = [COPIES[kind](image) for image in drawn]
    for both in (drawn + copies, copies + drawn):
        found = {(alike.first, alike.second) for alike in find_alike(thumbnails(both))}
        assert found == {(number, number + COUNT) for number in range(COUNT)}


def test_the_same_lens_does_not_make_copies_of_other_pictures(drawn: list[Image.Image]) -> None:
    seen = [under_a_lens(image) for image in drawn]
    copies = [COPIES["turned, cropped, recompressed"](image) for image in seen]
    found = {(alike.first, alike.second) for alike in find_alike(thumbnails(seen + copies))}
    assert found == {(number, number + COUNT) for number in range(COUNT)}
    planes = detail(thumbnails(seen))
    first, second = np.triu_indices(COUNT, 1)
    assert likeness(planes[first], planes[second]).max() < 0.6


def test_a_lens_takes_nothing_from_the_picture_within_it(drawn: list[Image.Image]) -> None:
    without, seen = (detail(thumbnails(images)) for images in (drawn, [under_a_lens(image) for image in drawn]))
    assert likeness(without, seen).min() > 0.7


def test_drawn_pictures_are_no_copies_but_those_planted() -> None:
    places = [("training", number) for number in range(90)] + [("validation", number) for number in range(60)]
    planes = in_threads(lambda place: draw(*place, size=200)[0], places, "draw", progress=False)
    pictures = [Image.fromarray(plane) for plane in planes]
    planted = [COPIES["turned, cropped, recompressed"](picture) for picture in pictures[::30]]
    found = {(alike.first, alike.second) for alike in find_alike(thumbnails(pictures + planted))}
    assert found == {(30 * number, len(pictures) + number) for number in range(len(planted))}


@pytest.mark.parametrize("view", range(len(VIEWS)))
def test_the_view_says_how_the_second_lies_as_the_first(drawn: list[Image.Image], view: int) -> None:
    plane = thumbnails(drawn[:1])[0]
    other = np.ascontiguousarray(turned(plane, view))
    (alike,) = find_alike(np.stack([plane, other]))
    np.testing.assert_array_equal(turned(other, VIEWS.index(alike.view)), plane)
    np.testing.assert_array_equal(turned(plane, VIEWS.index(opposite(alike.view))), other)
    assert alike.likeness == pytest.approx(1, abs=0.01)


def test_flat_and_few_pictures_have_no_copies() -> None:
    flat = np.stack([np.full((64, 64), level, np.uint8) for level in (0, 0, 90, 91)])
    assert find_alike(flat) == []
    assert find_alike(flat[:0]) == []


def test_likeness_undoes_a_shift_and_falls_for_others(drawn: list[Image.Image]) -> None:
    wide = np.asarray(drawn[0].convert("L").resize((72, 72)))
    planes = detail(np.stack([wide[:64, :64], wide[5:69, 3:67], thumbnails(drawn[1:2])[0]]))
    same, other = likeness(planes[[0, 0]], planes[[1, 2]])
    assert same > 0.9
    assert other < 0.4
