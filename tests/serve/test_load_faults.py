"""What requests at work see when the queue is full, when a client leaves, and when the server is to end."""

from __future__ import annotations

import re
import shutil
import socket
import threading
import time

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient import grpc
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from mbdcnn.data.sample import draw
from serve._metrics import fetch
from serve.client import MODEL, Client
from serve.probe import ask, main
from serve.server import TritonServer

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def narrow(exported, tmp_path_factory):
    """A repository whose first model lets two requests wait, in batches of one."""
    repository = tmp_path_factory.mktemp("narrow") / "repository"
    shutil.copytree(exported.repository, repository)
    file = repository / "preprocess" / "config.pbtxt"
    config = text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
    config.dynamic_batching.preferred_batch_size[:] = [1]
    config.dynamic_batching.default_queue_policy.max_queue_size = 2
    file.write_text(text_format.MessageToString(config))
    return repository


@pytest.fixture(scope="module")
def large(encode_once):
    """An image that takes a while."""
    return encode_once(np.random.default_rng(0).integers(0, 255, (2000, 2000, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def encode_once():
    import io

    from PIL import Image

    def encode(image):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG")
        return buffer.getvalue()

    return encode


def _tensor(data: bytes) -> grpc.InferInput:
    tensor = grpc.InferInput("IMAGE", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[data]], dtype=np.object_))
    return tensor


class Burst:
    """Requests sent at once by a plain client, and their answers as they come."""

    def __init__(self, url: str, data: bytes, n: int, model: str = MODEL) -> None:
        self.answers: list[str] = []
        self._n = n
        self.client = grpc.InferenceServerClient(url)
        tensor = _tensor(data)
        for _ in range(n):
            self.client.async_infer(model, [tensor], callback=self._take)

    def _take(self, result: object, error: InferenceServerException | None) -> None:
        self.answers.append("" if error is None else str(error))

    def wait(self) -> list[str]:
        end = time.monotonic() + 120
        while len(self.answers) < self._n:
            assert time.monotonic() < end, f"{len(self.answers)} of {self._n} answered"
            time.sleep(0.02)
        return self.answers


def test_a_full_queue_refuses_and_is_no_reason_to_restart(narrow, large, encode_once):
    with TritonServer(narrow, probe_interval=0.2, hung_after=5.0) as server:
        answers = Burst(server.grpc_url, large, 60).wait()
        refused = [a for a in answers if a]
        assert refused
        assert len(refused) < len(answers)
        assert all("UNAVAILABLE" in a and "maximum queue size" in a for a in refused)
        assert ask(server.http_url)
        assert server.restarts == 0


def test_what_waits_for_the_networks_is_bounded(exported, encode_once):
    """Images come in faster than the networks take them; no queue but the first has a bound of its own."""
    small, waited = encode_once(draw("test", 0, size=80)[0]), []
    with TritonServer(exported.repository) as server:
        burst = Burst(server.grpc_url, small, 1000)
        while len(burst.answers) < 1000:
            waited.append(_waiting_for_the_networks(server.metrics_url))
            time.sleep(0.02)
    refused = [answer for answer in burst.wait() if answer]
    assert 0 < len(refused) < 1000 - 128
    assert all("UNAVAILABLE" in answer and "maximum queue size" in answer for answer in refused)
    # each instance lets eight in between two looks, and may have looked at the same moment as another
    assert max(waited) <= 2 * 8 * exported.manifest["instances"]


def test_the_fused_model_refuses_what_waits_too_long(exported, encode_once):
    with TritonServer(exported.repository) as server:
        answers = Burst(server.grpc_url, encode_once(draw("test", 0, size=80)[0]), 1000, "mbdcnn_fused").wait()
    refused = [answer for answer in answers if answer]
    assert 0 < len(refused) < 1000 - 128
    assert all("UNAVAILABLE" in answer and "maximum queue size" in answer for answer in refused)


def _waiting_for_the_networks(metrics_url: str) -> float:
    rows = re.findall(
        r'^nv_inference_pending_request_count\{model="([^"]+)".*\} (\S+)$',
        fetch(metrics_url.removesuffix("/metrics")).decode(),
        re.MULTILINE,
    )
    networks = {"coarse_sn", "mask_cn", "cam", "enhanced_sn", "postprocess"}
    return sum(float(count) for model, count in rows if model in networks)


def test_a_request_whose_time_is_over_is_taken_from_the_queue(exported, large, encode_once):
    """A step of an ensemble is not told that the client has gone while the request waits for it; its time is known."""
    with TritonServer(exported.repository) as server:
        burst = Burst(server.grpc_url, large, 24)
        time.sleep(0.3)
        with pytest.raises(InferenceServerException, match=r"UNAVAILABLE.*timeout expired"):
            burst.client.infer(MODEL, [_tensor(encode_once(draw("test", 0, size=80)[0]))], timeout=1000)
        assert burst.wait() == [""] * 24


def test_requests_that_were_accepted_are_answered_before_the_end(exported, large):
    with TritonServer(exported.repository, drain=60) as server:
        burst = Burst(server.grpc_url, large, 24)
        time.sleep(1.0)  # all are accepted by then
        at_the_end = len(burst.answers)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        time.sleep(1.5)
        with pytest.raises(InferenceServerException, match=r"no available versions|not at ready state|UNAVAILABLE"):
            burst.client.infer(MODEL, [_tensor(large)])
        assert burst.wait() == [""] * 24
        assert at_the_end < 24, "nothing was at work when the server was stopped"
        stopping.join()


def test_clients_that_leave_or_dawdle_hurt_nobody(exported, large, encode_once):
    small = encode_once(draw("test", 0, size=80)[0])
    with TritonServer(exported.repository, probe_interval=0.5) as server, Client(server.grpc_url) as client:
        before = client.predict(small)
        gone = [Burst(server.grpc_url, large, 4) for _ in range(2)]
        time.sleep(0.3)
        for burst in gone:
            burst.client.close()
        with pytest.raises(InferenceServerException, match=r"(?i)deadline"):
            grpc.InferenceServerClient(server.grpc_url).infer(MODEL, [_tensor(large)], client_timeout=0.05)
        slow = [_half_a_request(server.ports.http) for _ in range(20)]  # more than the server has threads
        try:
            assert client.predict(small).probabilities == before.probabilities
            assert main(["--url", server.http_url]) == 0
        finally:
            for connection in slow:
                connection.close()
        assert server.restarts == 0


def _half_a_request(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(
        f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc".encode()
    )
    return connection
