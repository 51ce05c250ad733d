"""What both clients share: the address, the channel's options, and requests and answers as tritonclient has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mbdcnn.errors import UserError, unknown
from serve.client._errors import AnswerLostError, ServerError, explain
from serve.client._result import OUTPUTS, Result, results
from serve.client._retry import Attempts, Retry
from serve.probe import MODEL

BATCH = 16  # images that one request may hold
# During an upgrade a name stands for servers of two versions; so often is asked until one of the right version answers.
MOST_SERVERS = 16
_MOST_CLASSES = 10_000
_MOST_BYTES = 2**31 - 1


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of an encrypted connection.

    Attributes:
        ca: of the authority that signed the server's certificate; those that gRPC brings when None.
        cert: the client's certificate, for a server that asks for one.
        key: of `cert`.
        server_name: the name on the server's certificate, where the address is another.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def read(self) -> dict[str, str]:
        """The arguments of tritonclient for an encrypted channel.

        Raises:
            UserError: a file is missing or is not PEM, or a certificate comes without its key.
        """
        if (self.cert is None) != (self.key is None):
            raise UserError("--tls-cert and --tls-key belong together; give both, or neither.")
        files = {"root_certificates": self.ca, "certificate_chain": self.cert, "private_key": self.key}
        for file in filter(None, files.values()):
            try:
                readable = b"-----BEGIN " in file.read_bytes()
            except OSError as error:
                raise UserError(f"{file} cannot be read ({error.strerror}); name a PEM file.") from None
            if not readable:
                raise UserError(f"{file} is not a PEM file; convert it, for example with openssl.")
        return {name: str(file) for name, file in files.items() if file is not None}


@dataclass(frozen=True, eq=False)
class Reply:
    """What came of one request.

    Attributes:
        tensors: by output, with one row for each image.
        version: of the model that answered; a server may take a new one at any time.
    """

    tensors: dict[str, np.ndarray]
    version: str


class Connection:
    """The settings of a client and what it sends and understands, without the sending.

    Args:
        url: `HOST:PORT` of the server's gRPC address.
        deadline: seconds that one request may take, with all its attempts.
        model: `mbdcnn`, or `mbdcnn_fused` for the lowest latency; both have the same tensors.
        tls: encrypts the connection; plain when None.
        retry: how often to send what the server has not begun to work on.

    Raises:
        UserError: not an address, or TLS files that cannot be used.
    """

    def __init__(
        self,
        url: str = "127.0.0.1:8001",
        deadline: float = 60.0,
        *,
        model: str = MODEL,
        tls: TlsFiles | None = None,
        retry: Retry = Retry(),  # noqa: B008 - frozen
    ) -> None:
        try:
            from tritonclient import grpc
        except ImportError:
            raise UserError("tritonclient is not installed; install it with `pip install 'mbdcnn[serve]'`.") from None
        host, colon, port = url.removeprefix("grpc://").rpartition(":")
        if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
            raise UserError(f"{url} is not a server's address; write --url HOST:PORT, such as 127.0.0.1:8001.")
        self.url = f"{host}:{port}"
        self.deadline = deadline
        self.model = model
        self._retry = retry
        self._tls = tls
        self._tls_arguments = tls.read() if tls else {}
        self._grpc: ModuleType = grpc
        self._classes: dict[str, tuple[str, ...]] = {}  # by version
        self._client = self._open()

    def _open(self) -> Any:
        """The client of tritonclient, or None to make it later."""
        raise NotImplementedError

    def _channel(self) -> dict[str, Any]:
        """Arguments of tritonclient's clients."""
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", _MOST_BYTES),
            ("grpc.max_receive_message_length", _MOST_BYTES),
            # the default waits up to two minutes between attempts, long after a restarted server answers again
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.use_local_subchannel_pool", 1),  # a new client does not inherit another's back-off
        ]
        host = self.url.rpartition(":")[0]
        if not _is_one_machine(host):  # a single server that was restarted is found sooner without
            options.append(("grpc.lb_policy_name", "round_robin"))
        if _is_loopback(host):
            options.append(("grpc.enable_http_proxy", 0))  # gRPC would ask the proxy for this machine, too
        if self._tls and self._tls.server_name:
            options.append(("grpc.ssl_target_name_override", self._tls.server_name))
        return {"url": self.url, "ssl": self._tls is not None, "channel_args": options, **self._tls_arguments}

    def _attempts(self, name: str) -> Attempts:
        deadline = self.deadline

        def sentence(status: str, message: str) -> UserError:
            return explain(status, message, url=self.url, model=self.model, name=name, deadline=deadline)

        return Attempts(self._retry, deadline, sentence)

    def _request(self, images: Sequence[bytes], outputs: Sequence[Any]) -> dict[str, Any]:
        """Arguments of tritonclient's `infer`; `outputs` are names, or tritonclient's own."""
        if not 1 <= len(images) <= BATCH:
            raise UserError(f"A request holds {len(images)} images; send 1 to {BATCH}.")
        if not outputs:
            raise UserError(f"No output is asked for; name some of {', '.join(OUTPUTS)}.")
        for output in outputs:
            if isinstance(output, str) and output not in OUTPUTS:
                raise unknown("output", output, OUTPUTS)
        tensor = self._grpc.InferInput("IMAGE", [len(images), 1], "BYTES")
        tensor.set_data_from_numpy(np.array(list(images), dtype=np.object_).reshape(-1, 1))
        asked = [self._grpc.InferRequestedOutput(o) if isinstance(o, str) else o for o in outputs]
        return {"model_name": self.model, "inputs": [tensor], "outputs": asked}

    def _reply(self, answer: Any, request: dict[str, Any], name: str) -> Reply:
        """The arrays of an answer.

        Raises:
            ServerError: the answer lacks some.
        """
        tensors = {output.name(): answer.as_numpy(output.name()) for output in request["outputs"]}
        rows = request["inputs"][0].shape()[0]
        if any(tensor is None or len(tensor) != rows for tensor in tensors.values()):
            raise ServerError(f"The server at {self.url} answered for {name} without the outputs asked for.")
        return Reply(tensors, answer.get_response().model_version)

    def _ask_for_classes(self) -> Any:
        """Triton's classification extension: `probability:index:name` of each class, the likeliest first."""
        return self._grpc.InferRequestedOutput("PROBABILITIES", class_count=_MOST_CLASSES)

    def _learn_classes(self, reply: Reply) -> tuple[str, ...]:
        (ranked,) = reply.tensors["PROBABILITIES"]
        names = {int(index): name for _, index, name in (entry.decode().split(":", 2) for entry in ranked)}
        self._classes[reply.version] = classes = tuple(names[index] for index in range(len(names)))
        return classes

    def _knows_classes_of(self, reply: Reply) -> bool:
        """Whether the classes' names need not be asked for before the reply is read."""
        return "PROBABILITIES" not in reply.tensors or reply.version in self._classes

    def _results(self, reply: Reply, name: str) -> list[Result]:
        """One result for each image.

        Raises:
            AnswerLostError: the server has another version since, and the classes of this one are unknown.
        """
        if not self._knows_classes_of(reply):
            raise AnswerLostError(f"{name}: the server at {self.url} changed its version meanwhile; ask again.")
        return results(reply.tensors, self._classes.get(reply.version, ()))


def _is_one_machine(host: str) -> bool:
    """Whether it cannot stand for several servers, as a name can."""
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost"
    return True


def _is_loopback(host: str) -> bool:
    """Whether a server there is on this machine."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
