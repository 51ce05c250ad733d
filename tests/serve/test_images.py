"""What the server's models read and refuse, as the exported files do it."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from mbdcnn.data.sample import draw
from mbdcnn.preprocessing import prepare

PARTS = ("images", "preprocessing")


@pytest.fixture
def images(exported, monkeypatch):
    """The exported module `images`, which finds its parts beside itself."""
    monkeypatch.syspath_prepend(str(exported.repository / "preprocess" / "1"))
    import images

    yield images
    for name in PARTS:
        del sys.modules[name]


@pytest.fixture
def arguments():
    """What Triton hands to `initialize`."""
    parameters = {name: {"string_value": value} for name, value in (("max_encoded_mb", "2"), ("max_megapixels", "3"))}
    return {"model_config": json.dumps({"parameters": parameters})}


def test_limits_are_those_of_the_configuration(images, arguments):
    reader = images.Reader.configured(arguments)
    assert (reader.max_bytes, reader.max_pixels) == (2 * 2**20, 3_000_000)
    assert images.most_pixels(arguments) == 3_000_000


def test_the_environment_of_the_server_wins(images, arguments, monkeypatch):
    monkeypatch.setenv("MBDCNN_MAX_ENCODED_MB", "1")
    monkeypatch.setenv("MBDCNN_MAX_MEGAPIXELS", "100")
    reader = images.Reader.configured(arguments)
    assert (reader.max_bytes, reader.max_pixels) == (2**20, 100_000_000)


def test_an_image_is_read_as_the_project_defines_it(images, arguments, exported, encode):
    picture = draw("test", 3, size=150)[0]
    batch, sizes = images.read_batch([encode(picture)], images.Reader.configured(arguments).read)
    np.testing.assert_array_equal(batch, prepare(picture, exported.spec)[None])
    assert sizes.tolist() == [list(picture.shape[:2])]
    assert (batch.dtype, sizes.dtype) == (np.float32, np.int32)


def test_both_limits_refuse_before_anything_is_decoded(images, arguments, encode, monkeypatch):
    def decoded(*_: object) -> None:
        pytest.fail("decoded")

    reader = images.Reader.configured(arguments)
    large = encode(np.zeros((2000, 2000, 3), np.uint8))
    with pytest.raises(images.ImageError, match="2000 x 2000 pixels, more than 3000000"):
        reader.read(large)
    monkeypatch.setattr(images, "decode_image", decoded)
    with pytest.raises(images.ImageError, match="has 2097153 bytes, more than 2097152"):
        reader.read(bytes(2 * 2**20 + 1))
