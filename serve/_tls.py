"""The certificates with which a server shows who it is, and by which it knows its clients."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from mbdcnn.errors import UserError


@dataclass(frozen=True)
class ServerTls:
    """PEM files for the gRPC end point.

    Attributes:
        cert: the server's certificate, followed by those between it and its authority.
        key: the private key of `cert`, without a passphrase.
        client_ca: authorities of which a client must show a certificate; anyone may ask when None.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    @classmethod
    def of(cls, cert: Path | None, key: Path | None, client_ca: Path | None) -> ServerTls | None:
        """What the options of a command line ask for; None without any of them.

        Raises:
            UserError: one option lacks another.
        """
        if cert is None and key is None and client_ca is None:
            return None
        if cert is None or key is None:
            missing = "--tls-cert" if cert is None else "--tls-key"
            raise UserError(f"TLS needs {missing} too; name the server's certificate and its key.")
        return cls(cert, key, client_ca)

    def check(self) -> None:
        """Read the files as the server will.

        Raises:
            UserError: a file is missing or unreadable, the key is not the certificate's, or needs a passphrase.
        """
        for file in filter(None, (self.cert, self.key, self.client_ca)):
            try:
                file.read_bytes()
            except OSError as error:
                raise UserError(f"{file} cannot be read ({error.strerror}); name a PEM file.") from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert, self.key, password=lambda: "")  # an empty one, so that nobody is asked
        except (ssl.SSLError, ValueError):
            raise UserError(
                f"{self.key} is not the unencrypted PEM key of the certificate {self.cert}; name a pair that fits."
            ) from None
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except (ssl.SSLError, ValueError):
                raise UserError(f"{self.client_ca} holds no certificate; name a PEM file of authorities.") from None

    def arguments(self) -> list[str]:
        """Of tritonserver's command line."""
        kind = "ssl" if self.client_ca is None else "ssl-mutual"
        root = [] if self.client_ca is None else [f"--grpc-root-cert={self.client_ca.absolute()}"]
        return [
            f"--grpc-use-{kind}=true",
            f"--grpc-server-cert={self.cert.absolute()}",
            f"--grpc-server-key={self.key.absolute()}",
            *root,
        ]
