"""Validation examples as a picture: titles stay above their own panel."""

import numpy as np

from train._examples import draw_examples

PICTURES = np.zeros((2, 64, 64, 3), dtype=np.uint8)


def test_a_long_title_is_wrapped_above_its_own_picture() -> None:
    short = draw_examples(PICTURES, None, None, ["a", ""])
    drawn = draw_examples(PICTURES, None, None, ["melanoma, found seborrheic_keratosis of the elderly 37%", ""])
    assert drawn.shape[0] > short.shape[0]
    assert drawn.shape[1] == short.shape[1]
    top = int(np.argmax((drawn == 0).all(2).sum(1) > 100))  # where the pictures begin
    right = drawn[:top, drawn.shape[1] // 2 :]
    left = drawn[:top, : drawn.shape[1] // 2]
    assert (right == 255).all()
    assert (left < 255).any()


def test_without_titles_the_picture_is_lower() -> None:
    assert draw_examples(PICTURES, None, None, []).shape[0] < draw_examples(PICTURES, None, None, ["a", "b"]).shape[0]
