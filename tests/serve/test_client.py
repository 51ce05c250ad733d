from __future__ import annotations

import subprocess
import sys

import pytest

from mbdcnn.data.sample import draw
from mbdcnn.errors import UserError
from serve import client as room
from serve._ports import Ports, choose_ports
from serve.client import Client, ImageRefusedError, ServerError, _images
from serve.client._errors import sentence as own_words


def test_the_client_does_without_pytorch():
    code = "import sys, serve.client, serve.predict, serve.server; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_absent_server_is_named_at_once():
    port = choose_ports("127.0.0.1", Ports(0, 0, 0)).grpc
    with (
        Client(f"127.0.0.1:{port}", 60) as client,
        pytest.raises(ServerError, match=rf"No server answers at 127.0.0.1:{port}.*mbdcnn serve"),
    ):
        client.predict(b"image")


@pytest.mark.parametrize("url", ["localhost", "localhost:http", ":8001", "localhost:0", "localhost:99999", ""])
def test_a_wrong_address_is_refused_before_connecting(url):
    with pytest.raises(UserError, match=r"not a server's address"):
        Client(url)


def test_files_are_checked_before_sending(tmp_path, monkeypatch):
    monkeypatch.setattr(_images, "MAX_ENCODED_BYTES", 10)
    empty, large = tmp_path / "empty.jpg", tmp_path / "large.jpg"
    empty.touch()
    large.write_bytes(bytes(11))
    with pytest.raises(ImageRefusedError, match=r"empty.jpg: the image is empty"):
        room.read_image(empty)
    with pytest.raises(ImageRefusedError, match=r"large.jpg: the image file has 11 bytes, more than 10"):
        room.read_image(large)
    with pytest.raises(ImageRefusedError, match=r"absent.jpg: there is no such file"):
        room.read_image(tmp_path / "absent.jpg")
    with pytest.raises(ImageRefusedError, match=r"11 bytes"):
        room.read_image(bytes(11))


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("the image is empty", "the image is empty"),
        ("in ensemble 'mbdcnn', the image is empty", "the image is empty"),
        (
            "in ensemble 'mbdcnn', Failed to process the request(s) for model 'preprocess', message: a, b.",
            "a, b",
        ),
        ("", "the server refuses it without a reason"),
    ],
)
def test_the_models_own_words_are_kept(message, sentence):
    assert own_words(message) == sentence


@pytest.mark.server
def test_a_proxy_is_not_asked_for_this_machine(url, encode, monkeypatch):
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody answers there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Client(url) as client:
        assert client.predict(encode(draw("test", 0, size=80)[0])).probabilities


@pytest.mark.server
def test_a_server_without_the_model_is_named(url):
    with Client(url, model="other") as client, pytest.raises(ServerError, match=r"does not serve the model other"):
        client.predict(b"image")


@pytest.mark.server
def test_a_deadline_is_kept(url, encode):
    image = encode(draw("test", 0, size=3000)[0])  # its decoding alone takes far longer than the deadline
    with (
        Client(url, deadline=1e-3) as client,
        pytest.raises(room.DeadlineExceededError, match=r"within 0.001 s"),
    ):
        client.predict(image)


def test_waiting_for_a_server_ends():
    with pytest.raises(ServerError, match=r"No server answers at 127.0.0.1:1;"):
        room.wait_until_ready("127.0.0.1:1", 0)
    with pytest.raises(ServerError, match=r"No server answers at 127.0.0.1:1;"):
        room.wait_until_ready("127.0.0.1:1", 0.5)


@pytest.mark.server
def test_a_ready_server_is_not_waited_for(url):
    room.wait_until_ready(url, 30)
