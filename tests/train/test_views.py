"""The views of the protocol `authors`: each comes back to the image's own frame, and crops lie where they should."""

import numpy as np
import pytest
import torch

from train.views import VIEWS, View, crops, gather, merge, scales, see, spread, undo

GRID = torch.tensor([[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("view", "shown"),
    [
        (View(), [[1, 2], [3, 4]]),
        (View(turns=1), [[2, 4], [1, 3]]),
        (View(turns=2), [[4, 3], [2, 1]]),
        (View(turns=3), [[3, 1], [4, 2]]),
        (View(flip=-1), [[2, 1], [4, 3]]),
        (View(flip=-2), [[3, 4], [1, 2]]),
    ],
)
def test_each_view_shows_what_its_name_says(view, shown):
    assert view in VIEWS
    assert see(GRID, view).tolist() == shown


@pytest.mark.parametrize("view", [*VIEWS, View(1, -1), View(3, -2)])
def test_undo_restores_exactly(view):
    maps = torch.rand(2, 3, 5, 5)
    shown = see(maps, view)
    assert torch.equal(undo(shown, view), maps)
    assert view == View() or not torch.equal(shown, maps)


def test_the_six_views_differ_and_their_mean_is_the_map():
    maps = torch.rand(3, 2, 7, 7)
    views = spread(maps)
    assert views.shape == (18, 2, 7, 7)
    assert torch.equal(views[:3], maps)
    assert len({tuple(view.flatten().tolist()) for view in views}) == 18
    torch.testing.assert_close(gather(views), maps)


def test_gather_averages_each_image_by_itself():
    views = spread(torch.zeros(2, 1, 2, 2))
    views[3] += 6  # the second image's first turn, all of it
    assert gather(views).flatten().tolist() == [0] * 4 + [1] * 4
    views[1, 0, 0, 0] = 12  # its own frame's upper left corner
    assert gather(views)[1, 0].tolist() == [[3, 1], [1, 1]]


def test_scales():
    assert scales(224) == (224, 256, 288)
    assert scales(96) == (96, 112, 128)
    for size in range(32, 512, 16):
        side, larger, largest = scales(size)
        assert side == size <= larger <= largest
        assert larger % 16 == largest % 16 == 0


@pytest.mark.parametrize(("height", "width"), [(540, 722), (722, 540), (101, 101), (7, 333), (4499, 6748)])
def test_crops_are_central_and_as_large_as_their_share(height, width):
    frames = crops(height, width)
    assert len(frames) == 9
    assert frames[8] == (0, 0, width, height)
    short = min(height, width)
    for position, (left, top, right, bottom) in enumerate(frames[:8]):
        share = (4 - position % 4) / 5
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert abs((left + right) - width) <= 1  # half a pixel off the centre
        assert abs((top + bottom) - height) <= 1
        w, h = right - left, bottom - top
        if position < 4:
            assert (w, h) == (max(1, int(share * width + 1e-9)), max(1, int(share * height + 1e-9)))
        else:
            assert w == h == max(1, int(share * short + 1e-9))


def test_crops_by_hand():
    assert crops(50, 100) == (
        (10, 5, 90, 45), (20, 10, 80, 40), (30, 15, 70, 35), (40, 20, 60, 30),
        (30, 5, 70, 45), (35, 10, 65, 40), (40, 15, 60, 35), (45, 20, 55, 30),
        (0, 0, 100, 50),
    )  # fmt: skip
    assert crops(1, 1) == ((0, 0, 1, 1),) * 9


@pytest.mark.parametrize(("height", "width"), [(48, 48), (61, 97), (20, 30)])
def test_merge_is_the_mean_of_bicubic_resizes(height, width):
    planes = [torch.randn(side, side) for side in (32, 40, 48)]
    expected = [
        torch.nn.functional.interpolate(plane[None, None], (height, width), mode="bicubic", antialias=True)[0, 0]
        for plane in planes
    ]
    merged = merge([plane.numpy() for plane in planes], height, width)
    assert merged.dtype == np.float32
    np.testing.assert_allclose(merged, torch.stack(expected).mean(0), atol=1e-5)


def test_merge_cuts_a_frame_out_of_every_scale():
    planes = [np.tile(np.linspace(0, 1, 2 * side + 1, dtype=np.float32)[1::2], (side, 1)) for side in (40, 80)]
    ramp = merge(planes, 10, 20, (0.25, 0.5, 0.75, 0.75))  # values are the place from the left, 0 to 1
    np.testing.assert_allclose(ramp, np.tile((np.arange(20) + 0.5) / 20 * 0.5 + 0.25, (10, 1)), atol=2e-3)
    downwards = merge([plane.T for plane in planes], 4, 8, (0, 0.5, 1, 0.75))
    np.testing.assert_allclose(downwards[:, 0], (np.arange(4) + 0.5) / 4 * 0.25 + 0.5, atol=2e-3)
