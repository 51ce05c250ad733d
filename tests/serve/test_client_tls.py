"""Encrypted connections to a real tritonserver, with and without a certificate of the client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from certificates import LOCAL, Authority

from mbdcnn.data.sample import draw
from mbdcnn.errors import UserError
from serve._ports import Ports
from serve._tls import ServerTls
from serve.client import Client, Retry, ServerError, TlsFiles
from serve.server import TritonServer

ONCE = Retry(attempts=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "hospital", "hospital")


@pytest.fixture(scope="module")
def tls_url(exported, authority) -> Iterator[str]:
    """A tritonserver that speaks TLS only and asks for the client's certificate."""
    server = authority.issue("server", LOCAL)
    tls = ServerTls(server.cert, server.key, authority.ca)
    with TritonServer(exported.repository, ports=Ports(0, 0, 0), tls=tls) as running:
        yield running.grpc_url


def _known(authority: Authority, server_name: str | None = None) -> TlsFiles:
    """What a client has that the server knows."""
    doctor = authority.issue("doctor")
    return TlsFiles(authority.ca, doctor.cert, doctor.key, server_name)


@pytest.mark.server
def test_a_server_may_leave_clients_unknown(exported, authority, encode, tmp_path):
    own = authority.issue("server", LOCAL)
    image = tmp_path / "lesion.png"
    image.write_bytes(encode(draw("test", 0, size=80)[0]))
    words = [sys.executable, "-m", "mbdcnn", "predict", str(image), "--json", "--url"]
    with TritonServer(exported.repository, tls=ServerTls(own.cert, own.key)) as server:
        trusting = subprocess.run([*words, server.grpc_url, "--tls-ca", authority.ca], capture_output=True, timeout=120)
        assert json.loads(trusting.stdout)[0]["label"], trusting.stderr
        other = ["--tls-ca", authority.ca, "--tls-server-name", "elsewhere"]
        wary = subprocess.run([*words, server.grpc_url, *other], capture_output=True, text=True, timeout=120)
        assert wary.returncode == 2
        assert "not the one that --tls-ca vouches" in wary.stderr


@pytest.mark.server
class TestServer:
    def test_a_client_with_a_certificate_is_answered(self, tls_url, authority, encode):
        with Client(tls_url, tls=_known(authority)) as client:
            assert client.predict(encode(draw("test", 0, size=80)[0])).label

    def test_a_client_without_one_is_not(self, tls_url, authority):
        with (
            Client(tls_url, 10, tls=TlsFiles(authority.ca), retry=ONCE) as client,
            pytest.raises(ServerError, match=r"hangs up on this client.*--tls-cert"),
        ):
            client.infer([b"x"], ["CAM"])

    def test_a_client_that_speaks_plainly_is_not(self, tls_url):
        with Client(tls_url, 10, retry=ONCE) as client, pytest.raises(ServerError, match=r"may want TLS"):
            client.infer([b"x"], ["CAM"])

    def test_an_authority_that_did_not_sign_is_named(self, tls_url, authority, tmp_path):
        stranger = Authority(tmp_path / "other", "other")
        doctor = authority.issue("doctor")
        tls = TlsFiles(stranger.ca, doctor.cert, doctor.key)
        with (
            Client(tls_url, 30, tls=tls) as client,
            pytest.raises(ServerError, match=r"not the one that --tls-ca vouches"),
        ):
            client.infer([b"x"], ["CAM"])

    def test_a_name_on_the_certificate_may_be_given(self, tls_url, authority):
        for name, known in (("server", True), ("other", False)):
            with Client(tls_url, tls=_known(authority, name)) as client:
                if known:
                    assert client.classes()
                else:
                    with pytest.raises(ServerError, match=r"not the one that --tls-ca vouches"):
                        client.classes()


def test_files_are_checked_before_connecting(tmp_path, authority):
    doctor = authority.issue("doctor")
    (tmp_path / "der").write_bytes(b"\x30\x82")
    for tls, sentence in (
        (TlsFiles(authority.ca, doctor.cert), "--tls-cert and --tls-key belong together"),
        (TlsFiles(authority.ca, key=doctor.key), "--tls-cert and --tls-key belong together"),
        (TlsFiles(tmp_path / "absent.pem"), r"absent.pem cannot be read \(No such file"),
        (TlsFiles(tmp_path / "der"), "der is not a PEM file"),
    ):
        with pytest.raises(UserError, match=sentence):
            Client("127.0.0.1:1", tls=tls)
