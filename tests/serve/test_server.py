from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest

from mbdcnn.classes import CLASSES
from mbdcnn.data.sample import draw
from mbdcnn.preprocessing import decode_image, restore
from serve.client import MODEL, OUTPUTS, Client, ImageRefusedError

pytestmark = pytest.mark.server
SUBSETS = [s for n in range(1, len(OUTPUTS) + 1) for s in combinations(OUTPUTS, n)]


@pytest.fixture(scope="module")
def client(url):
    with Client(url) as client:
        yield client


def _agreement(a, b):
    union = (a | b).sum()
    return (a & b).sum() / union if union else 1.0


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_answers_equal_pytorch(client, exported, encode, kind):
    for position in range(4):
        data = encode(draw("validation", position, size=200 + 60 * position)[0], kind)
        image = decode_image(data)
        said, result = exported.expect(image), client.predict(data)
        probabilities = said.probabilities[0].numpy()
        assert list(result.probabilities) == list(CLASSES)
        assert np.abs(probabilities - list(result.probabilities.values())).max() < 1e-3
        assert result.label == CLASSES[int(probabilities.argmax())]
        assert result.coarse_mask.dtype == result.mask.dtype == np.uint8
        assert _agreement(result.coarse_mask > 0, said.coarse_mask[0, 0].numpy() > 0) >= 0.995
        assert np.abs(result.cam - said.cam[0, 0].numpy()).max() < 1e-2
        assert np.abs(result.lesion_probability - said.lesion_probability[0, 0].numpy()).max() < 1e-2
        assert result.mask.shape == image.shape[:2]
        assert set(np.unique(result.mask)) == {0, 255}
        truth = restore(said.lesion_probability[0, 0].numpy(), *image.shape[:2]) > 0.5
        assert _agreement(result.mask > 0, truth) >= 0.995


@pytest.mark.parametrize("outputs", SUBSETS, ids=lambda s: "+".join(s))
def test_any_subset_of_outputs_can_be_asked_for(client, encode, outputs):
    tensors = client.infer([encode(draw("test", 0, size=100)[0])], outputs)
    assert set(tensors) == set(outputs)
    assert all(len(t) == 1 for t in tensors.values())


@pytest.mark.parametrize("size", [2, 5, 16])
def test_a_batch_of_mixed_sizes_equals_its_members(client, encode, size):
    images = [encode(draw("test", i, size=80 + 40 * (i % 4))[0]) for i in range(size)]
    whole = client.infer(images)
    for i in (0, size - 1):
        alone = client.infer([images[i]])
        assert np.allclose(whole["PROBABILITIES"][i], alone["PROBABILITIES"][0], atol=1e-4)
        assert whole["MASK_PNG"][i] == alone["MASK_PNG"][0]


def test_labels_come_with_the_probabilities(client, encode):
    from tritonclient import grpc

    tensor = grpc.InferInput("IMAGE", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[encode(draw("test", 1, size=100)[0])]], dtype=np.object_))
    answer = client._client.infer(MODEL, [tensor], outputs=[grpc.InferRequestedOutput("PROBABILITIES", class_count=3)])
    found = [row.decode().split(":")[2] for row in answer.as_numpy("PROBABILITIES").reshape(-1)]
    assert sorted(found) == sorted(CLASSES)


def test_the_client_learns_the_classes_from_the_server(client):
    assert client.classes() == CLASSES


BAD = {
    "text": b"This is a letter, not a picture.",
    "header only": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "gif": b"GIF89a\x01\x00\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x00;",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_bad_image_is_one_sentence(client, data):
    with pytest.raises(ImageRefusedError, match=r"^letter.jpg: not a readable JPEG, PNG or BMP image\.$"):
        client.predict(data, "letter.jpg")


def test_a_truncated_image_is_named_so(client, encode):
    with pytest.raises(ImageRefusedError, match="damaged or truncated"):
        client.predict(encode(draw("test", 0)[0])[:4000])


def test_too_many_pixels_are_refused_from_the_header(client):
    header = b"BM" + bytes(8) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    huge = header + (9000).to_bytes(4, "little") * 2 + b"\x01\x00\x18\x00" + bytes(24)
    with pytest.raises(ImageRefusedError, match="9000 x 9000 pixels"):
        client.predict(huge)


def test_the_bad_member_of_a_batch_is_named(client, encode):
    with pytest.raises(ImageRefusedError, match="image 2 of 2: not a readable"):
        client.infer([encode(draw("test", 0, size=80)[0]), b"bad"])


def test_bad_requests_among_many_cost_only_themselves(client, encode):
    good = encode(draw("test", 0, size=80)[0])
    images = [b"bad" if i % 8 == 3 else good for i in range(32)]
    answers = list(client.stream(images, in_flight=8))
    assert [a.result is not None for a in answers] == [i % 8 != 3 for i in range(32)]


def test_many_clients_at_once(url, encode):
    data = encode(draw("test", 2, size=80)[0])

    def ask(_: int) -> str:
        with Client(url) as client:
            return client.predict(data).label

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(16)))) == 1


def test_control_protocols_are_closed(client):
    from tritonclient.utils import InferenceServerException

    for call in (
        lambda: client._client.register_system_shared_memory("mine", "/mine", 64),
        lambda: client._client.load_model("cam"),
        lambda: client._client.update_log_settings({"log_verbose_level": 1}),
    ):
        with pytest.raises(InferenceServerException, match="restricted"):
            call()


def test_postprocess_refuses_a_size_that_no_image_may_have(client, exported):
    from tritonclient import grpc
    from tritonclient.utils import InferenceServerException

    side = exported.spec.image_size
    lesion = grpc.InferInput("lesion", [1, 1, side, side], "FP32")
    lesion.set_data_from_numpy(np.zeros((1, 1, side, side), np.float32))
    for size in ([2_000_000_000, 2_000_000_000], [0, 5], [-3, -3]):
        native = grpc.InferInput("native_size", [1, 2], "INT32")
        native.set_data_from_numpy(np.array([size], np.int32))
        with pytest.raises(InferenceServerException, match="native_size must be positive"):
            client._client.infer("postprocess", [lesion, native])
