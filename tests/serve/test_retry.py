"""Only a request that no model has seen is sent again, a few times, within the deadline."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from tritonclient.utils import InferenceServerException

from mbdcnn.errors import UserError
from serve.client import Client, DeadlineExceededError, NotAnsweredError, Retry, ServerBusyError, ServerError
from serve.client._errors import explain
from serve.client._retry import Attempts

REFUSED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused"
CLOSED = "connections to all backends failing; last error: UNKNOWN: ipv4:127.0.0.1:1: Socket closed"
FULL = "in ensemble 'mbdcnn', [request id: <id_unknown>] Exceeds maximum queue size"
DRAINED = "Request for unknown model: 'mbdcnn' has no available versions"
UNLOADED = "Request for unknown model: 'mbdcnn' version 2 is not at ready state"
LOST = "Stream removed (Socket closed)"
UNTRUSTED = "failed to connect to all addresses; last error: UNKNOWN: Ssl handshake failed: CERTIFICATE_VERIFY_FAILED"


def _attempts(retry: Retry, deadline: float = 60.0) -> Attempts:
    def sentence(status: str, message: str) -> UserError:
        return explain(status, message, url="here:1", model="mbdcnn", name="x.jpg", deadline=deadline)

    return Attempts(retry, deadline, sentence)


def _error(status: str, message: str) -> InferenceServerException:
    return InferenceServerException(message, f"StatusCode.{status}")


@pytest.mark.parametrize(
    ("status", "message", "raised", "sentence"),
    [
        ("UNAVAILABLE", REFUSED, ServerError, "No server answers"),
        ("UNAVAILABLE", CLOSED, ServerError, "hangs up on this client"),
        ("UNAVAILABLE", FULL, ServerBusyError, "the queue of the server at here:1 is full"),
        ("NOT_FOUND", DRAINED, ServerError, "is starting or ending"),
        ("UNAVAILABLE", UNLOADED, ServerError, "is starting or ending"),
    ],
)
def test_what_was_not_begun_is_asked_again_a_few_times(status, message, raised, sentence):
    attempts = _attempts(Retry(attempts=4, first_pause=0.1, longest_pause=0.3))
    pauses = [attempts.pause_after(_error(status, message)) for _ in range(3)]
    for pause, longest in zip(pauses, (0.1, 0.2, 0.3), strict=True):
        assert longest / 2 <= pause <= longest
    with pytest.raises(raised, match=sentence):
        attempts.pause_after(_error(status, message))


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("INVALID_ARGUMENT", "the image is empty"),
        ("INVALID_ARGUMENT", FULL),
        ("UNAVAILABLE", LOST),
        ("UNAVAILABLE", UNTRUSTED),
        ("UNAVAILABLE", "Request timeout expired"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded"),
        ("INTERNAL", "the network failed on this input"),
        ("NOT_FOUND", "Request for unknown model: 'mbdcnn' is not found"),
        ("", ""),
    ],
)
def test_all_else_is_final(status, message):
    with pytest.raises(UserError) as caught:
        _attempts(Retry(attempts=100)).pause_after(_error(status, message))
    assert "0x" not in str(caught.value)
    assert str(caught.value).endswith(".")
    assert isinstance(caught.value, NotAnsweredError | ServerError)


def test_an_output_that_an_older_repository_lacks_is_no_images_fault():
    told = "[request id: <id_unknown>] unexpected inference output 'MASK_DOUBT' for model 'mbdcnn'"
    with pytest.raises(ServerError, match=r"MASK_DOUBT.*export the run again"):
        _attempts(Retry()).pause_after(_error("INVALID_ARGUMENT", told))


def test_no_pause_outlasts_the_deadline():
    with pytest.raises(ServerError):
        _attempts(Retry(attempts=100, first_pause=10), deadline=1).pause_after(_error("UNAVAILABLE", REFUSED))


def test_a_deadline_on_the_servers_side_is_a_deadline():
    with pytest.raises(DeadlineExceededError):
        _attempts(Retry()).pause_after(_error("UNAVAILABLE", "Request timeout expired"))


@pytest.mark.server
def test_a_server_that_comes_back_is_found(url, encode):
    """The address refuses at first, then leads to the server: as a restart looks from outside."""
    from mbdcnn.data.sample import draw

    data = encode(draw("test", 0, size=80)[0])
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]

        def open_door() -> None:
            time.sleep(1.5)
            door.listen()
            inside, _ = door.accept()
            host, _, number = url.rpartition(":")
            with inside, socket.create_connection((host, int(number))) as server:
                back = threading.Thread(target=_pump, args=(server, inside))
                back.start()
                _pump(inside, server)
                back.join()

        opener = threading.Thread(target=open_door)
        opener.start()
        with Client(f"127.0.0.1:{port}", retry=Retry(attempts=30, longest_pause=0.5)) as client:
            assert client.predict(data).label
        opener.join(60)


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # the other side is gone, which ends this one too
        source.close()
