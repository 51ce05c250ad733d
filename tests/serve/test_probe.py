from __future__ import annotations

import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from serve.probe import ProbeError, ProbeTimeoutError, ask, main
from serve.server import TritonServer


@pytest.fixture
def answering():
    """Starts an HTTP server that says always the same."""
    servers = []

    def start(status: int, body: bytes, fields: dict[str, str]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                for name, value in fields.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.server
def test_a_server_is_asked_for_a_real_answer(exported, capfd):
    with TritonServer(exported.repository) as server:
        command = [sys.executable, "-m", "serve.probe", "--url", server.http_url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert main(["--url", server.http_url, "--model", "absent"]) == 1
        assert "fails on a tiny image with the model absent (HTTP 404" in capfd.readouterr().err
    assert main(["--url", server.http_url, "--deadline", "2"]) == 1
    assert "No server answers" in capfd.readouterr().err


def test_a_full_queue_is_a_living_server(answering, capfd):
    url = answering(503, b'{"error":"in ensemble, Exceeds maximum queue size"}', {})
    assert ask(url) is False
    assert main(["--url", url]) == 0
    assert "queue" in capfd.readouterr().err


def test_a_server_that_ends_or_says_nothing_fails(answering):
    with pytest.raises(ProbeError, match="stopped accepting"):
        ask(answering(503, b'{"error":"Server is stopping, has stopped accepting new requests"}', {}))
    with pytest.raises(ProbeError, match="without content"):
        ask(answering(200, b"", {}))
    header = b'{"outputs":[{"name":"PROBABILITIES","parameters":{"binary_data_size":0}}]}'
    with pytest.raises(ProbeError, match="without content"):
        ask(answering(200, header, {"Inference-Header-Content-Length": str(len(header))}))


def test_a_server_that_never_answers_is_told_from_one_that_is_absent():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ProbeTimeoutError, match=r"within 0\.2 s"):
            ask(f"http://127.0.0.1:{silent.getsockname()[1]}", deadline=0.2)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "https://x:1", "http://x", "http://x:99999", "http://:80"])
def test_an_address_that_is_none_is_refused(url, capfd):
    with pytest.raises(SystemExit) as stopped:
        main(["--url", url])
    assert stopped.value.code == 2
    assert "is not an address such as" in capfd.readouterr().err
