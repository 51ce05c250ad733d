"""The production profiles on the real server that pip installs, as far as its backends go.

It has no ONNX Runtime backend and no GPU, and is of release 24.10, which does not know `max_inflight_requests`.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tritonclient import grpc
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from mbdcnn.data.sample import draw
from mbdcnn.preprocessing import decode_image, prepare
from serve._ports import Ports, choose_ports
from serve._profiles import NETWORKS
from serve._triton import Arguments, Installation
from train.pipeline import Loader, Sample
from train.sampling import EvaluationOrder

pytestmark = pytest.mark.server
PROFILE = "production-dali"  # holds all of `production` but the decoder
LEVELS = 127.5  # of the 255 grey levels to one unit of a normalised image: mean and deviation are 0.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("production")


@pytest.fixture(scope="module")
def triton(exported, folder) -> Iterator[grpc.InferenceServerClient]:
    shutil.copytree(exported.repository, folder / "repository")
    for path in (folder / "repository").glob(f"*/configs/{PROFILE}.pbtxt"):
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        if config.HasField("ensemble_scheduling"):
            config.ensemble_scheduling.ClearField("max_inflight_requests")
        if config.backend == "python":
            (group,) = config.instance_group
            group.kind, group.count = model_config_pb2.ModelInstanceGroup.KIND_CPU, 1
        path.write_text(text_format.MessageToString(config))
    installation = Installation.find("embedded")
    installation.link_backends(folder / "backends")
    ports, prefix = choose_ports("127.0.0.1", Ports(0, 0, 0)), f"mbdcnn_production_{folder.name}_"
    given = Arguments(folder / "repository", "127.0.0.1", ports)
    command = installation.command(given, folder / "backends", prefix)
    open_to_us = [word for word in command if "restricted" not in word and "--exit-on-error" not in word]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*open_to_us, f"--model-config-name={PROFILE}", "--exit-on-error=false"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=installation.environment(given),
        )
    try:
        with grpc.InferenceServerClient(f"127.0.0.1:{ports.grpc}") as client:
            _wait(client, folder / "log")
            yield client
    finally:
        process.terminate()
        process.wait(60)
        for left in Path("/dev/shm").glob(f"{prefix}*"):
            left.unlink()


def _wait(client: grpc.InferenceServerClient, log: Path) -> None:
    for _ in range(1200):
        try:
            if client.is_model_ready("preprocess") and client.is_model_ready("postprocess"):
                return
        except InferenceServerException:
            pass
        time.sleep(0.1)
    pytest.fail(log.read_text())


@pytest.fixture(scope="module")
def golden(tmp_path_factory) -> dict[str, Path]:
    """Pictures of several sizes, formats and orientations."""
    folder, files = tmp_path_factory.mktemp("golden"), {}
    for name, size, kind, options in (
        ("small.jpg", 90, "JPEG", {"quality": 95}),
        ("subsampled.jpg", 333, "JPEG", {"quality": 75, "subsampling": 2}),
        ("progressive.jpg", 640, "JPEG", {"quality": 85, "progressive": True}),
        ("large.jpg", 1600, "JPEG", {"quality": 90}),
        ("on its side.jpg", 400, "JPEG", {"quality": 90, "exif": _turned(6)}),
        ("mirrored.jpg", 300, "JPEG", {"quality": 90, "exif": _turned(5)}),
        ("lossless.png", 257, "PNG", {}),
        ("bitmap.bmp", 201, "BMP", {}),
    ):
        files[name] = folder / name
        Image.fromarray(draw("validation", len(files), size=size)[0]).save(files[name], kind, **options)
    Image.fromarray(draw("validation", 0, size=300)[0]).convert("L").save(folder / "grey.jpg")
    return {**files, "grey.jpg": folder / "grey.jpg"}


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _preprocess(triton: grpc.InferenceServerClient, images: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    tensor = grpc.InferInput("encoded", [len(images), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(images, dtype=np.object_).reshape(-1, 1))
    answer = triton.infer("preprocess", [tensor])
    return answer.as_numpy("image"), answer.as_numpy("native_size")


def test_every_configuration_is_taken_and_networks_lack_only_the_backend(triton, folder):
    index = {m.name: m for m in triton.get_model_repository_index().models}
    assert {name for name, m in index.items() if m.state == "READY"} == {"preprocess", "postprocess"}
    for name in NETWORKS:
        assert "unable to find backend library for backend 'onnxruntime'" in index[name].reason
    log = (folder / "log").read_text()
    missing = dict(re.findall(r"ensemble '(\w+)' depends on '(\w+)' which has no loaded version", log))
    assert missing.keys() == {"mbdcnn", "mbdcnn_fused"}
    assert missing["mbdcnn"] in NETWORKS  # whichever the server looked for first
    assert missing["mbdcnn_fused"] == "mbdcnn_networks"
    assert triton.get_model_config("preprocess").config.parameters["decoder"].string_value == "dali"


def test_training_and_both_ways_of_serving_see_the_same_pixels(triton, url, exported, golden):
    """The definition is `mbdcnn.preprocessing`; Pillow on the server equals it, DALI comes near it.

    Stated tolerance: half a grey level on average, three at most, but eight in the outermost rows and columns.
    """
    data = [path.read_bytes() for path in golden.values()]
    pictures = [decode_image(d) for d in data]
    defined = np.stack([prepare(picture, exported.spec) for picture in pictures])
    with grpc.InferenceServerClient(url) as embedded_server:
        embedded, sizes = _preprocess(embedded_server, data)
    np.testing.assert_array_equal(embedded, defined)
    assert sizes.tolist() == [list(picture.shape[:2]) for picture in pictures]

    production, sizes = _preprocess(triton, data)
    assert sizes.tolist() == [list(picture.shape[:2]) for picture in pictures]
    order = EvaluationOrder(len(golden), len(golden))
    loader = Loader([Sample(p, ()) for p in golden.values()], [], order, exported.spec, None, 0, torch.device("cpu"))
    (batch,) = loader.epoch(0)
    training = batch.images.numpy()
    for name, ours, dali, trained in zip(golden, defined, production, training, strict=True):
        for other in (dali, trained):
            levels = np.abs(other - ours) * LEVELS
            assert levels.mean() < 0.5, name
            assert levels[:, 1:-1, 1:-1].max() <= 3.001, name
            assert levels.max() <= 8.001, name  # the outermost pixels, where the filter reaches over the edge
    jpegs = [i for i, name in enumerate(golden) if name.endswith(".jpg")]
    assert not np.array_equal(production[jpegs], defined[jpegs])  # DALI, not Pillow, has decoded them
    np.testing.assert_array_equal(production[jpegs], training[jpegs])


def test_dali_says_of_bad_images_what_pillow_says_and_goes_on(triton, golden, exported):
    good = golden["progressive.jpg"].read_bytes()
    cmyk = io.BytesIO()
    Image.fromarray(draw("test", 0, size=120)[0]).convert("CMYK").save(cmyk, "JPEG")
    expected, _ = _preprocess(triton, [good])
    for bad in (b"letter", b"", good[:300], good[: len(good) // 2]):
        with pytest.raises(InferenceServerException) as refusal:
            _preprocess(triton, [good, bad])
        assert refusal.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert "image 2 of 2" in refusal.value.message()
        np.testing.assert_array_equal(_preprocess(triton, [good])[0], expected)
    left_to_pillow = _preprocess(triton, [cmyk.getvalue()])[0][0]
    np.testing.assert_array_equal(left_to_pillow, prepare(decode_image(cmyk.getvalue()), exported.spec))
