"""The metrics' own end point, without a tritonserver behind it."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import closing

import pytest

from mbdcnn.errors import UserError
from serve._metrics import Metrics, MetricsEndpoint, executions
from serve._ports import Ports, choose_ports
from serve.probe import ProbeError, request

HOST = "127.0.0.1"


@pytest.fixture
def port() -> int:
    return choose_ports(HOST, Ports(0, 0, 0)).metrics


def _get(port: int) -> bytes:
    return request(f"http://{HOST}:{port}", "/metrics", 60)[2]


def test_between_two_servers_the_supervisions_own_are_given(port):
    def none() -> bytes:
        raise ProbeError("There is no server.")

    metrics = Metrics()
    metrics.restarts.inc()
    with closing(MetricsEndpoint(HOST, port, metrics, none)):
        text = _get(port)
    assert b"mbdcnn_server_up 0.0" in text
    assert b"mbdcnn_server_restarts_total 1.0" in text


def test_a_scraper_that_goes_away_leaves_no_traceback(port, capfd):
    gone = threading.Event()

    def slow() -> bytes:
        gone.wait(60)
        return b"# " + bytes(2**24)

    with closing(MetricsEndpoint(HOST, port, Metrics(), slow)):
        for _ in range(3):
            with socket.create_connection((HOST, port)) as scraper:
                scraper.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                # closed by a reset, not by an end
                scraper.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.set()
        assert len(_get(port)) > 2**24
        assert not [t for t in threading.enumerate() if "process_request_thread" in t.name and t.join(60)]
    assert capfd.readouterr().err == ""


def test_a_port_that_was_taken_meanwhile_is_named(port):
    with (
        closing(MetricsEndpoint(HOST, port, Metrics(), bytes)),
        pytest.raises(UserError, match=f"Port {port} on {HOST} was taken meanwhile"),
    ):
        MetricsEndpoint(HOST, port, Metrics(), bytes)


def test_batches_are_summed_over_models():
    text = b'# HELP nv_inference_exec_count x\nnv_inference_exec_count{model="a",version="1"} 3\n'
    assert executions(text + b'nv_inference_exec_count{model="b",version="1"} 4\n') == 7
