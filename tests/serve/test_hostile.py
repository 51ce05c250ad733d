"""A thousand inputs that no server should stumble over, each refused by itself while others are answered."""

from __future__ import annotations

import asyncio
import random
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from tritonclient import grpc
from tritonclient.grpc import aio, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from mbdcnn.data.sample import draw
from mbdcnn.preprocessing import MAX_ENCODED_BYTES, ImageError, decode_image
from serve.client import MODEL
from serve.client._errors import sentence

pytestmark = pytest.mark.server
COUNT = 1000
OVERSIZE = 3  # each travels in full before it can be refused
_LONGEST = 500  # Triton explains wrong shapes at length
# what belongs into a log at most: addresses, files, traces, names of our code
_INTERNAL = re.compile(r"0x[0-9a-f]{4,}|Traceback|File \"|\.py\b|site-packages|object at|/tmp|/home|/dev/shm|PIL\b")


@dataclass
class Told:
    """What came of the hostile requests and of the good ones beside them."""

    refusals: list[tuple[str, str, str]] = field(default_factory=list)  # kind, status, message
    answered: list[str] = field(default_factory=list)
    good: list[bool] = field(default_factory=list)


def hostile_images(seeds: list[bytes], count: int) -> Iterator[tuple[str, bytes]]:
    """`(kind, data)` of files that cannot be used; what a decoder forgives is left out."""
    rng, made = random.Random(6), 0
    while made < count:
        kind, data = _spoil(rng, rng.choice(seeds))
        try:
            decode_image(data)
        except ImageError:
            made += 1
            yield kind, data


def _spoil(rng: random.Random, image: bytes) -> tuple[str, bytes]:
    kind = rng.choice(["fuzzed", "fuzzed head", "truncated", "empty", "huge header", "text", "noise", "spliced"])
    data = bytearray(image)
    if kind.startswith("fuzzed"):
        reach = 64 if kind == "fuzzed head" else len(data)
        for _ in range(rng.choice([1, 4, 32])):
            data[rng.randrange(reach)] = rng.randrange(256)
    elif kind == "truncated":
        del data[rng.randrange(len(data)) :]
    elif kind == "empty":
        return kind, b""
    elif kind == "huge header":
        return kind, _huge(rng)
    elif kind == "text":
        return kind, bytes(rng.choice(b"abcdefghij klmnop\n\xc3\x9f") for _ in range(rng.randrange(1, 400)))
    elif kind == "noise":
        return kind, image[: rng.choice([0, 2, 8, 30])] + rng.randbytes(rng.randrange(1, 3000))
    else:
        cut = rng.randrange(len(data))
        data[cut : cut + rng.randrange(1, 500)] = rng.randbytes(rng.randrange(200))
    return kind, bytes(data)


def _huge(rng: random.Random) -> bytes:
    """A few bytes that promise many pixels, as PNG or BMP."""
    width, height = rng.choice([(30_000, 30_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (70_000, 1_000)])
    if rng.random() < 0.5:
        header = b"BM" + bytes(8) + struct.pack("<I", 54)
        return header + struct.pack("<IIIHH", 40, width, height, 1, 24) + bytes(24)
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(40)


def _tensor(array: np.ndarray, kind: str, name: str = "IMAGE") -> grpc.InferInput:
    tensor = grpc.InferInput(name, list(array.shape), kind)
    tensor.set_data_from_numpy(array)
    return tensor


def _bytes(data: bytes, shape: tuple[int, ...] = (1, 1), name: str = "IMAGE") -> grpc.InferInput:
    return _tensor(np.full(shape, data, dtype=np.object_), "BYTES", name)


def _beside(good: bytes, bad: bytes, others: int) -> grpc.InferInput:
    """A batch of good images with a bad one in its middle."""
    members = [good] * others
    members.insert(others // 2, bad)
    return _tensor(np.array(members, dtype=np.object_).reshape(-1, 1), "BYTES")


def wrong_tensors(good: bytes) -> dict[str, tuple[list[grpc.InferInput], list[str] | None]]:
    """Requests that the model's configuration rules out: inputs, and outputs asked for."""
    return {
        "wrong name": ([_bytes(good, name="PICTURE")], None),
        "no input": ([], None),
        "one input too many": ([_bytes(good), _bytes(good, name="MASK")], None),
        "the same input twice": ([_bytes(good), _bytes(good)], None),
        "pixels": ([_tensor(np.zeros((1, 3, 96, 96), np.float32), "FP32")], None),
        "numbers": ([_tensor(np.zeros((1, 1), np.uint8), "UINT8")], None),
        "no batch": ([_bytes(good, (1,))], None),
        "two in a row": ([_bytes(good, (1, 2))], None),
        "three dimensions": ([_bytes(good, (1, 1, 1))], None),
        "empty batch": ([_bytes(good, (0, 1))], None),
        "too many": ([_bytes(good, (17, 1))], None),
        "unknown output": ([_bytes(good)], ["DIAGNOSIS"]),
    }


def malformed(good: bytes) -> dict[str, service_pb2.ModelInferRequest]:
    """Requests that no client library would write: what is said of the data does not fit the data."""

    def request(raw: bytes | None, shape: tuple[int, ...] = (1, 1)) -> service_pb2.ModelInferRequest:
        made = service_pb2.ModelInferRequest(model_name=MODEL)
        made.inputs.add(name="IMAGE", datatype="BYTES", shape=shape)
        if raw is not None:
            made.raw_input_contents.append(raw)
        return made

    return {
        "no data": request(None),
        "no bytes": request(b""),
        "half a length": request(b"\x01\x00"),
        "length beyond the data": request(struct.pack("<I", 2**31) + good),
        "length short of the data": request(struct.pack("<I", 5) + good),
        "data of one, shape of two": request(struct.pack("<I", len(good)) + good, (2, 1)),
        "data of two, shape of one": request(2 * (struct.pack("<I", len(good)) + good)),
        "negative shape": request(struct.pack("<I", len(good)) + good, (-1, 1)),
        "endless shape": request(struct.pack("<I", len(good)) + good, (2**62, 2**62)),
    }


async def _attack(url: str, seeds: list[bytes], good: bytes) -> Told:
    told, over = Told(), asyncio.Event()
    client = aio.InferenceServerClient(url)
    special = [(kind, *request) for kind, request in wrong_tensors(good).items()]
    special += [("oversize", [_bytes(b"\xff\xd8" + bytes(MAX_ENCODED_BYTES + i))], None) for i in range(OVERSIZE)]
    count = COUNT - len(special) - len(malformed(good))
    images = enumerate(hostile_images(seeds, count))
    # every tenth in the middle of a batch of good ones
    spoilt = ((kind, [_bytes(data) if i % 10 else _beside(good, data, 1 + i % 15)], None) for i, (kind, data) in images)
    queue = iter([*special, *spoilt])

    async def hostile() -> None:
        for kind, inputs, outputs in queue:
            asked = [grpc.InferRequestedOutput(name) for name in outputs or ["PROBABILITIES", "MASK_PNG"]]
            try:
                await client.infer(MODEL, inputs, outputs=asked, client_timeout=120)
                told.answered.append(kind)
            except InferenceServerException as error:
                told.refusals.append((kind, str(error.status()).removeprefix("StatusCode."), error.message()))

    async def friendly() -> None:
        while not over.is_set():
            answer = await client.infer(MODEL, [_bytes(good)], client_timeout=120)
            told.good.append(bool(np.isfinite(answer.as_numpy("PROBABILITIES")).all()))

    friends = [asyncio.create_task(friendly()) for _ in range(2)]
    await asyncio.gather(*(hostile() for _ in range(8)))
    over.set()
    await asyncio.gather(*friends)
    await client.close()
    return told


@pytest.fixture(scope="module")
def told(url, encode) -> Told:
    pictures = [draw("test", i, size=80 + 40 * i)[0] for i in range(3)]
    seeds = [encode(picture, kind) for picture in pictures for kind in ("JPEG", "PNG", "BMP")]
    return asyncio.run(_attack(url, seeds, seeds[0]))


def _bad_sentence(kind: str, status: str, message: str) -> str | None:
    """Why a refusal is not what it should be; None when it is."""
    words = sentence(message)
    if status != "INVALID_ARGUMENT":
        return f"{kind}: {status} {message}"
    if _INTERNAL.search(message) or len(words) > _LONGEST or "\n" in words or not re.match(r"[\[\w]", words):
        return f"{kind}: {message}"
    return None


def test_every_hostile_input_is_refused_by_a_clear_sentence(told):
    assert told.answered == []
    assert [bad for refusal in told.refusals if (bad := _bad_sentence(*refusal))] == []
    assert len(told.refusals) == COUNT - 9


def test_good_requests_beside_them_are_answered(told):
    assert len(told.good) > 20
    assert all(told.good)


def test_every_kind_was_among_them(told, encode):
    kinds = {kind for kind, *_ in told.refusals}
    assert kinds >= {"fuzzed", "fuzzed head", "truncated", "empty", "huge header", "text", "noise", "spliced"}
    assert kinds >= {"oversize", *wrong_tensors(b"")}


def test_requests_that_no_library_writes_are_refused(url, encode):
    import grpc as plain

    requests = malformed(encode(draw("test", 0, size=80)[0]))
    assert len(requests) == 9
    bad = []
    with plain.insecure_channel(url) as channel:
        for kind, request in requests.items():
            try:
                service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
                bad.append(f"{kind}: answered")
            except plain.RpcError as error:
                found = _bad_sentence(kind, error.code().name, error.details())
                bad += [found] if found else []
    assert bad == []
