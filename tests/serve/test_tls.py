from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest
from certificates import LOCAL, Authority, Pair, lock
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from mbdcnn.errors import UserError
from serve._log import parse_line
from serve._tls import ServerTls
from serve.probe import ask
from serve.server import TritonServer


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "hospital", "hospital")


def _alive(url: str, ca: Path, own: Pair | None) -> bool:
    pair = {} if own is None else {"private_key": str(own.key), "certificate_chain": str(own.cert)}
    with grpc.InferenceServerClient(url, ssl=True, root_certificates=str(ca), **pair) as client:
        return client.is_server_live(client_timeout=5.0)


@pytest.mark.server
def test_only_clients_with_a_known_certificate_are_answered(exported, authority, tmp_path):
    own = authority.issue("server", LOCAL)
    tls = ServerTls(own.cert, own.key, authority.ca)
    stranger = Authority(tmp_path / "other", "other").issue("stranger")
    with TritonServer(exported.repository, host="0.0.0.0", tls=tls) as server:
        assert _alive(server.grpc_url, authority.ca, authority.issue("client"))
        for client in (None, stranger):
            with pytest.raises(InferenceServerException):
                _alive(server.grpc_url, authority.ca, client)
        with (
            pytest.raises(InferenceServerException),
            grpc.InferenceServerClient(server.grpc_url) as plain,
        ):
            plain.is_server_live(client_timeout=5.0)
        assert ask(server.http_url)  # for this machine's probes
        assert _listens_on(server.ports.http) == _listens_on(server.ports.metrics) == {"127.0.0.1"}


def _listens_on(port: int) -> set[str]:
    """The IPv4 addresses on which something listens at a port."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, state = line.split()[1], line.split()[3]
        if state == "0A" and int(address.partition(":")[2], 16) == port:
            found.add(socket.inet_ntoa(bytes.fromhex(address[:8])[::-1]))
    return found


def test_files_that_do_not_fit_are_named(authority, tmp_path):
    server, client = authority.issue("server", LOCAL), authority.issue("client")
    cert, key = server.cert, server.key
    ServerTls(cert, key, authority.ca).check()
    with pytest.raises(UserError, match=r"client\.key is not the unencrypted PEM key of the certificate .*server\.pem"):
        ServerTls(cert, client.key).check()
    with pytest.raises(UserError, match=r"absent\.pem cannot be read"):
        ServerTls(tmp_path / "absent.pem", key).check()
    (tmp_path / "empty.pem").touch()
    with pytest.raises(UserError, match=r"empty\.pem holds no certificate"):
        ServerTls(cert, key, tmp_path / "empty.pem").check()
    lock(key, tmp_path / "locked.key")
    with pytest.raises(UserError, match="unencrypted"):
        ServerTls(cert, tmp_path / "locked.key").check()


def test_half_of_a_pair_is_refused():
    assert ServerTls.of(None, None, None) is None
    with pytest.raises(UserError, match="--tls-key"):
        ServerTls.of(Path("cert"), None, None)
    with pytest.raises(UserError, match="--tls-cert"):
        ServerTls.of(None, None, Path("ca"))


def test_a_line_of_tritonservers_log_is_taken_apart():
    line = 'E1123 13:48:22.265731 2734 main.cc:535] "failed to stop"'
    assert parse_line(line) == (40, "main.cc:535", "failed to stop")
    assert parse_line("| a table |") == (20, None, "| a table |")


@pytest.mark.server
def test_json_logs_are_one_object_a_line(exported):
    import signal
    import sys

    code = f"from serve.server import serve; serve({str(exported.repository)!r}, 0, 0, 0, json_logs=True)"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    entries = []
    try:
        for line in process.stderr:
            entries.append(json.loads(line))
            if entries[-1].get("event") == "ready":
                process.send_signal(signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    events = [e["event"] for e in entries if e["source"] == "supervisor"]
    assert events == ["start", "ready", "stopping", "stopped"]
    assert any(e["source"] == "tritonserver" and e.get("place", "").startswith("grpc_server") for e in entries)
    assert all({"time", "level", "message"} <= e.keys() for e in entries)
