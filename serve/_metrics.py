"""The Prometheus metrics of a server and of its supervision, on one address that outlives restarts."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from mbdcnn.errors import UserError
from serve.probe import ProbeError, request

_EXECUTIONS = re.compile(rb"^nv_inference_exec_count\{[^}]*\} (\S+)$", re.MULTILINE)


class Metrics:
    """What is counted about the supervision.

    Attributes:
        up: 1 while the server answers.
        restarts: of a server that no longer answered, by its supervisor.
        upgrades: to another version, by `result`: done or refused.
        probe_seconds: that the last tiny inference took.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.up = Gauge("mbdcnn_server_up", "1 while the server answers a tiny image.", registry=self.registry)
        self.restarts = Counter("mbdcnn_server_restarts", "Servers that were replaced.", registry=self.registry)
        self.upgrades = Counter("mbdcnn_upgrades", "New versions found.", ["result"], registry=self.registry)
        self.probe_seconds = Gauge("mbdcnn_probe_seconds", "Time of the last tiny inference.", registry=self.registry)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle of an answer is not worth a traceback."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class MetricsEndpoint:
    """Serves `/metrics`: the supervision's own, then tritonserver's while it answers.

    Args:
        host: to listen on.
        port: to listen on.
        metrics: the supervision's.
        server_metrics: gives tritonserver's as text; raises `ProbeError` while there are none.

    Raises:
        UserError: the port is taken.
    """

    def __init__(self, host: str, port: int, metrics: Metrics, server_metrics: Callable[[], bytes]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 10.0  # of a slow client, which holds a thread

            def do_GET(self) -> None:
                if self.path.partition("?")[0] != "/metrics":
                    self.send_error(404)
                    return
                body = generate_latest(metrics.registry)
                with suppress(ProbeError):  # between two servers ours are all there is
                    body += server_metrics()
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE_LATEST)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Scrapes are not worth a line."""

        try:
            self._server = _Server((host, port), Handler)
        except OSError:
            raise UserError(f"Port {port} on {host} was taken meanwhile; start again.") from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="mbdcnn-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def fetch(url: str) -> bytes:
    """Metrics of a tritonserver, as text.

    Raises:
        ProbeError: it has none now.
    """
    status, _, body = request(url, "/metrics", 3.0)
    if status != 200:
        raise ProbeError(f"{url} gives no metrics (HTTP {status}).")
    return body


def executions(text: bytes) -> float:
    """How many batches all models together have run."""
    return sum(float(value) for value in _EXECUTIONS.findall(text))
