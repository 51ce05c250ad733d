"""Both models on the real server: every subset of outputs, what is left undone, and the same answers."""

from __future__ import annotations

import io
import queue
import time
from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from mbdcnn.data.sample import draw
from mbdcnn.preprocessing import prepare
from serve._profiles import SOURCE
from serve.client import OUTPUTS

pytestmark = pytest.mark.server
SUBSETS = [s for n in (1, 2, len(OUTPUTS)) for s in combinations(OUTPUTS, n)]
STEPS = ("preprocess", "coarse_sn", "mask_cn", "cam", "enhanced_sn", "postprocess")
NEEDS = {
    "COARSE_MASK": STEPS[:2],
    "PROBABILITIES": STEPS[:3],
    "CAM": STEPS[:4],
    "LESION_PROBABILITY": STEPS[:5],
    "MASK_PNG": STEPS,
    "MASK_DOUBT": STEPS[:5],
    "CLASS_DOUBT": STEPS[:3],
    "UNFAMILIARITY": STEPS[:3],
}


@pytest.fixture(scope="module")
def triton(url):
    with grpc.InferenceServerClient(url) as client:
        yield client


def ask(triton, model, images, outputs=OUTPUTS, name="IMAGE"):
    tensor = grpc.InferInput(name, [len(images), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(images, dtype=np.object_).reshape(-1, 1))
    answer = triton.infer(model, [tensor], outputs=[grpc.InferRequestedOutput(output) for output in outputs])
    return {output: answer.as_numpy(output) for output in outputs}


def counts(triton):
    """How many images each model has worked on; it may count the last one a moment after its answer."""
    time.sleep(0.05)
    statistics = triton.get_inference_statistics()
    return {m.name: m.inference_count for m in statistics.model_stats}


def ran(triton, before, expected):
    """How many images each model has worked on since, once all that are expected have counted theirs."""
    for _ in range(200):
        worked = {name: n - before[name] for name, n in counts(triton).items() if n > before[name]}
        if expected <= set(worked):
            break
    return worked


@pytest.fixture(scope="module")
def images(encode):
    return [encode(draw("test", i, size=80 + 30 * (i % 4))[0]) for i in range(16)]


@pytest.fixture(scope="module")
def encode():
    def encode(image):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="module")
def whole(triton, images):
    return ask(triton, "mbdcnn", images)


@pytest.mark.parametrize("outputs", SUBSETS, ids="+".join)
def test_only_the_steps_that_a_subset_needs_are_run(triton, images, whole, outputs):
    before = counts(triton)
    found = ask(triton, "mbdcnn", images[:1], outputs)
    needed = {step for output in outputs for step in NEEDS[output]}
    assert ran(triton, before, {"mbdcnn", *needed}) == dict.fromkeys({"mbdcnn", *needed}, 1)
    for output in outputs:
        same(found[output], whole[output][:1])


@pytest.mark.parametrize("outputs", SUBSETS, ids="+".join)
def test_the_fused_model_answers_every_subset_as_the_ensemble_does(triton, images, whole, outputs):
    before = counts(triton)
    found = ask(triton, "mbdcnn_fused", images[:2], outputs)
    assert ran(triton, before, {"mbdcnn_fused"}) == {"mbdcnn_fused": 2}
    assert set(found) == set(outputs)
    for output in outputs:
        same(found[output], whole[output][:2])


def same(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if expected.dtype == np.object_:
        assert found.tolist() == expected.tolist()
    else:
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_batches_of_mixed_sizes(triton, images, whole, size):
    found = ask(triton, "mbdcnn_fused", images[:size])
    for output in OUTPUTS:
        same(found[output], whole[output][:size])


@pytest.mark.parametrize("model", ["mbdcnn", "mbdcnn_fused"])
def test_every_bad_image_of_a_batch_is_named_with_its_own_reason(triton, images, model):
    batch = [images[0], b"letter", images[1], b""]
    with pytest.raises(InferenceServerException) as refusal:
        ask(triton, model, batch)
    assert refusal.value.status() == "StatusCode.INVALID_ARGUMENT"
    message = refusal.value.message()
    assert "image 2 of 4: not a readable JPEG, PNG or BMP image; image 4 of 4: the image is empty" in message


@pytest.mark.parametrize("model", ["mbdcnn", "mbdcnn_fused"])
def test_more_than_sixteen_images_are_refused(triton, images, model):
    with pytest.raises(InferenceServerException, match="batch-size must be <= 16"):
        ask(triton, model, [images[0]] * 17)


@pytest.mark.parametrize("model", ["mbdcnn", "mbdcnn_fused"])
def test_too_many_bytes_are_refused_before_they_are_looked_at(triton, images, model):
    long = images[0] + bytes(32 * 2**20)  # any decoder would stop at the image's end and take it
    with pytest.raises(InferenceServerException, match=f"the image file has {len(long)} bytes, more than 33554432"):
        ask(triton, model, [long], ["PROBABILITIES"])


def test_bad_requests_in_a_fused_batch_cost_only_themselves(triton, images, whole):
    answers: queue.Queue = queue.Queue()
    for i in range(32):
        tensor = grpc.InferInput("IMAGE", [1, 1], "BYTES")
        data = b"bad" if i % 8 == 3 else images[0]
        tensor.set_data_from_numpy(np.array([[data]], dtype=np.object_))
        triton.async_infer(
            "mbdcnn_fused", [tensor], lambda result, error, i=i: answers.put((i, result, error)), request_id=str(i)
        )
    for i, result, error in (answers.get(timeout=60) for _ in range(32)):
        assert (error is not None) == (i % 8 == 3)
        if error is None:
            same(result.as_numpy("PROBABILITIES"), whole["PROBABILITIES"][:1])


def test_the_networks_can_be_asked_without_decoding(triton, images, whole, exported):
    prepared = prepare(draw("test", 0, size=80)[0], exported.spec)[None]
    tensor = grpc.InferInput("image", list(prepared.shape), "FP32")
    tensor.set_data_from_numpy(prepared)
    names = {
        "probabilities": "PROBABILITIES",
        "mask_out": "COARSE_MASK",
        "cam_out": "CAM",
        "lesion": "LESION_PROBABILITY",
        "mask_doubt": "MASK_DOUBT",
        "class_doubt": "CLASS_DOUBT",
        "unfamiliarity": "UNFAMILIARITY",
    }
    answer = triton.infer("mbdcnn_networks", [tensor], outputs=[grpc.InferRequestedOutput(name) for name in names])
    for name, output in names.items():
        same(answer.as_numpy(name), whole[output][:1])


def test_networks_that_no_output_needs_do_not_run(exported, monkeypatch):
    """Each is taken away as soon as no output of those before it is left to ask for."""
    monkeypatch.syspath_prepend(str(SOURCE))
    from network import CHAIN, Chain

    chain = Chain(exported.repository, "1")
    image = np.zeros((1, 3, exported.spec.image_size, exported.spec.image_size), np.float32)
    for name, output in zip(reversed(CHAIN), ("lesion_out", "cam_out", "probabilities", "mask_out"), strict=True):
        assert output in chain.run([output], image)
        del chain.networks[name]
        assert output not in chain.run([output], image)
