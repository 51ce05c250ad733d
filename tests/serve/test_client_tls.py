"""Encrypted connections to a real tritonserver, with and without a certificate of the client."""

from __future__ import annotations

import datetime
import ipaddress
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mbdcnn.data.sample import draw
from mbdcnn.errors import UserError
from serve._ports import Ports
from serve._tls import ServerTls
from serve.client import Client, Retry, ServerError, TlsFiles
from serve.server import TritonServer

ONCE = Retry(attempts=1)


class Authority:
    """Signs certificates into a folder, as `NAME.pem` and `NAME.key`."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir()
        self.folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca = self._write("ca", self._sign(self._name, self._key, x509.BasicConstraints(True, None)), self._key)

    def issue(self, name: str, *addresses: x509.GeneralName) -> TlsFiles:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, x509.SubjectAlternativeName([x509.DNSName(name), *addresses]))
        return TlsFiles(self.ca, self._write(name, certificate, key), self.folder / f"{name}.key")

    def _sign(self, subject, key, extension):
        now = datetime.datetime.now(datetime.timezone.utc)
        day = datetime.timedelta(days=1)
        builder = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - day).not_valid_after(now + day).add_extension(extension, True)
        return builder.sign(self._key, hashes.SHA256())

    def _write(self, name, certificate, key):
        pem = serialization.Encoding.PEM
        path = self.folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(pem))
        kind = serialization.PrivateFormat.PKCS8
        path.with_suffix(".key").write_bytes(key.private_bytes(pem, kind, serialization.NoEncryption()))
        return path


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "hospital", "hospital")


@pytest.fixture(scope="module")
def tls_url(exported, authority) -> Iterator[str]:
    """A tritonserver that speaks TLS only and asks for the client's certificate."""
    server = authority.issue("server", x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    tls = ServerTls(server.cert, server.key, server.ca)
    with TritonServer(exported.repository, ports=Ports(0, 0, 0), tls=tls) as running:
        yield running.grpc_url


@pytest.mark.server
class TestServer:
    def test_a_client_with_a_certificate_is_answered(self, tls_url, authority, encode):
        with Client(tls_url, tls=authority.issue("doctor")) as client:
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
        start = time.monotonic()
        with Client(tls_url, tls=tls) as client, pytest.raises(ServerError, match=r"not the one that --tls-ca vouches"):
            client.infer([b"x"], ["CAM"])
        assert time.monotonic() - start < 30

    def test_a_name_on_the_certificate_may_be_given(self, tls_url, authority):
        doctor = authority.issue("doctor")
        for name, known in (("server", True), ("other", False)):
            with Client(tls_url, tls=TlsFiles(doctor.ca, doctor.cert, doctor.key, name)) as client:
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
