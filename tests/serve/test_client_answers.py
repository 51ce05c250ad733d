"""Both clients against the real server: streams, batches, subsets of outputs."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from mbdcnn.classes import CLASSES
from mbdcnn.data.sample import draw
from mbdcnn.errors import UserError
from serve.client import AnswerLostError, AsyncClient, Client, ImageRefusedError

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def images(encode):
    return [encode(draw("test", i, size=80 + 20 * (i % 3))[0]) for i in range(6)]


@pytest.fixture(scope="module")
def client(url):
    with Client(url) as client:
        yield client


def _asked(url, ask):
    """What a coroutine function says of an AsyncClient of that address."""

    async def run():
        async with AsyncClient(url) as client:
            return await ask(client)

    return asyncio.run(run())


def test_only_what_was_asked_for_can_be_read(client, images):
    result = client.predict(images[0], outputs=["CAM"])
    assert set(result.tensors) == {"CAM"}
    assert result.cam.ndim == 2
    for name, read in {"PROBABILITIES": lambda: result.label, "MASK_PNG": lambda: result.mask}.items():
        with pytest.raises(UserError, match=f"{name} was not asked for"):
            read()


def test_a_mask_is_decoded_once_and_only_when_read(client, images):
    result = client.predict(images[0])
    assert "mask" not in vars(result)
    assert result.mask is result.mask
    assert result.mask_png.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("images", "outputs", "sentence"),
    [
        ([b"x"], ["MASK"], "no output MASK; did you mean MASK_PNG?"),
        ([b"x"], [], "No output is asked for"),
        ([], ["CAM"], "holds 0 images; send 1 to 16"),
        ([b"x"] * 17, ["CAM"], "holds 17 images"),
    ],
)
def test_a_request_that_no_server_would_take_is_not_sent(images, outputs, sentence):
    with Client("127.0.0.1:1") as nobody, pytest.raises(UserError, match=sentence):
        nobody.infer(images, outputs)


def test_asyncio_says_the_same(client, url, images):
    async def ask(asynchronous):
        assert await asynchronous.classes() == CLASSES
        return await asyncio.gather(*(asynchronous.predict(image) for image in images))

    for image, result in zip(images, _asked(url, ask), strict=True):
        expected = client.predict(image)
        assert result.label == expected.label
        assert result.mask_png == expected.mask_png
        assert np.allclose(result.cam, expected.cam, atol=1e-4)


def test_asyncio_refuses_and_names(url, tmp_path):
    async def ask(asynchronous):
        with pytest.raises(ImageRefusedError, match="letter: not a readable"):
            await asynchronous.predict(b"Dear colleague", "letter")
        with pytest.raises(ImageRefusedError, match=r"absent.jpg: there is no such file"):
            await asynchronous.predict(tmp_path / "absent.jpg")

    _asked(url, ask)


class TestBatch:
    def test_one_bad_image_costs_only_itself(self, client, url, images):
        batch = [*images, b"bad", *images, b"", *images]

        async def ask(asynchronous):
            return await asynchronous.predict_batch(batch, ["PROBABILITIES"])

        for answers in (client.predict_batch(batch, ["PROBABILITIES"]), _asked(url, ask)):
            assert [a.index for a in answers] == list(range(20))
            assert [a.index for a in answers if a.error] == [6, 13]
            assert isinstance(answers[6].error, ImageRefusedError)
            assert all(a.result.label in CLASSES for a in answers if a.result)

    def test_members_keep_their_places(self, client, images):
        alone = [client.predict(image).mask_png for image in images]
        assert [a.result.mask_png for a in client.predict_batch(images)] == alone


class TestStream:
    def test_a_folder_in_order(self, client, url, images, tmp_path):
        for i, image in enumerate([*images, b"bad"]):
            (tmp_path / f"{i}.png").write_bytes(image)
        alone = [client.predict(image).mask_png for image in images]

        async def ask(asynchronous):
            return [a async for a in asynchronous.stream(tmp_path, outputs=["MASK_PNG"], in_flight=3)]

        for answers in (list(client.stream(tmp_path, outputs=["MASK_PNG"], in_flight=3)), _asked(url, ask)):
            assert [a.name for a in answers] == [str(tmp_path / f"{i}.png") for i in range(7)]
            assert "6.png: not a readable" in str(answers[6].error)
            assert [a.result.mask_png for a in answers[:6]] == alone

    def test_as_completed_everyone_comes_once(self, client, url, images):
        async def ask(asynchronous):
            return [a.index async for a in asynchronous.stream(images * 3, outputs=["CAM"], in_flight=4, ordered=False)]

        found = [a.index for a in client.stream(images * 3, outputs=["CAM"], in_flight=4, ordered=False)]
        assert sorted(found) == sorted(_asked(url, ask)) == list(range(18))

    def test_no_more_is_taken_than_may_be_in_flight(self, client, images):
        taken = []

        def source():
            for i in range(40):
                taken.append(i)
                yield images[i % 6]

        for answer in client.stream(source(), outputs=["PROBABILITIES"], in_flight=5):
            assert len(taken) <= answer.index + 6

    def test_leaving_early_is_no_error(self, client, url, images):
        async def ask(asynchronous):
            stream = asynchronous.stream(images * 10, in_flight=4)
            async for _ in stream:
                break
            await stream.aclose()
            return await asynchronous.predict(images[0])

        for _ in client.stream(images * 10, in_flight=4):
            break
        assert client.predict(images[0]).label == _asked(url, ask).label


def test_a_client_that_is_closed_wakes_what_waits_for_a_server():
    client = Client("127.0.0.1:1")
    client._retry = type(client._retry)(attempts=100, first_pause=60, longest_pause=60)
    client.deadline = 1000
    told = []

    def ask():
        try:
            client.infer([b"x"])
        except AnswerLostError as error:
            told.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    threading.Timer(1.0, client.close).start()
    thread.join(50)
    assert told == ["the image: the client was closed before an answer came."]
