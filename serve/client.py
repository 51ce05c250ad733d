"""Ask a Triton server that serves an exported model repository.

Works without PyTorch. The tensors are plain KServe v2: any `tritonclient` can send `IMAGE` (BYTES, `[n, 1]`,
a JPEG, PNG or BMP each) to the model `mbdcnn` and ask for any of `OUTPUTS`.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from mbdcnn.errors import UserError
from mbdcnn.preprocessing import MAX_BYTES

MODEL = "mbdcnn"
_MOST_CLASSES = 10_000
OUTPUTS = ("PROBABILITIES", "COARSE_MASK", "CAM", "LESION_PROBABILITY", "MASK_PNG")


class ServerError(UserError):
    """The server is absent, not ready, or does not serve this model: no image would be answered."""


class ImageRefusedError(UserError):
    """The server, or the check before sending, refuses one image; others may well be answered."""


class DeadlineExceededError(UserError):
    """The answer did not come in time; the server may be busy or hung."""


@dataclass(frozen=True)
class Result:
    """What the networks say of one image.

    Attributes:
        label: the most probable class.
        probabilities: by class name; they sum to 1.
        coarse_mask: `(S, S)` uint8 in {0, 1}, coarse-SN's mask in the squashed frame of the network.
        cam: `(h, w)` float32 in [0, 1], the activation map of `label`.
        lesion_probability: `(S, S)` float32 in [0, 1], from enhanced-SN.
        mask: `(H, W)` uint8, 255 on the lesion and 0 elsewhere, at the image's own size as displayed.
    """

    label: str
    probabilities: dict[str, float]
    coarse_mask: np.ndarray
    cam: np.ndarray
    lesion_probability: np.ndarray
    mask: np.ndarray


class Client:
    """A connection to one server; safe to use from several threads.

    Args:
        url: `HOST:PORT` of the server's gRPC address.
        deadline: seconds that one image may take.
    """

    def __init__(self, url: str = "127.0.0.1:8001", deadline: float = 60.0) -> None:
        try:
            from tritonclient import grpc
        except ImportError:
            raise UserError("tritonclient is not installed; install it with `pip install 'mbdcnn[serve]'`.") from None
        host, colon, port = url.removeprefix("grpc://").rpartition(":")
        if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
            raise UserError(f"{url} is not a server's address; write --url HOST:PORT, such as 127.0.0.1:8001.")
        self.url = f"{host}:{port}"
        self.deadline = deadline
        self._grpc = grpc
        most = 2**31 - 1
        # the default waits up to two minutes between attempts, long after a restarted server answers again
        options = [
            ("grpc.max_send_message_length", most),
            ("grpc.max_receive_message_length", most),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.use_local_subchannel_pool", 1),  # a new client does not inherit another's back-off
        ]
        self._client = grpc.InferenceServerClient(self.url, channel_args=options)
        self._classes: tuple[str, ...] = ()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def infer(
        self, images: Sequence[bytes], outputs: Sequence[str] = OUTPUTS, name: str = "the image"
    ) -> dict[str, np.ndarray]:
        """Send one request and return tensors as they come.

        Args:
            images: 1 to 16 encoded images.
            outputs: some of `OUTPUTS`; the server skips what none of them needs.
            name: what error messages call the input.

        Returns:
            For each output an array whose first dimension is `len(images)`.

        Raises:
            ImageRefusedError: an image is not usable.
            DeadlineExceededError: no answer in time.
            ServerError: the server is absent or cannot answer.
        """
        return self._ask(images, [self._grpc.InferRequestedOutput(output) for output in outputs], name)

    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of `PROBABILITIES`, as the repository's `labels.txt` has them.

        Asked of the server once for each connection, with a tiny image.

        Raises:
            UserError: as `infer`.
        """
        if not self._classes:
            # Triton's classification extension: "probability:index:name" of each class, the likeliest first
            asked = self._grpc.InferRequestedOutput("PROBABILITIES", class_count=_MOST_CLASSES)
            (ranked,) = self._ask([TINY_IMAGE], [asked], "the names of the classes")["PROBABILITIES"]
            names = {int(index): name for _, index, name in (entry.decode().split(":", 2) for entry in ranked)}
            self._classes = tuple(names[index] for index in range(len(names)))
        return self._classes

    def _ask(self, images: Sequence[bytes], outputs: Sequence[Any], name: str) -> dict[str, np.ndarray]:
        """One request; `outputs` are tritonclient's."""
        tensor = self._grpc.InferInput("IMAGE", [len(images), 1], "BYTES")
        tensor.set_data_from_numpy(np.array(list(images), dtype=np.object_).reshape(-1, 1))
        try:
            answer = self._client.infer(MODEL, [tensor], outputs=outputs, client_timeout=self.deadline)
        except Exception as error:
            raise self._explain(error, name) from None
        tensors = {output.name(): answer.as_numpy(output.name()) for output in outputs}
        if any(tensor is None or len(tensor) != len(images) for tensor in tensors.values()):
            raise ServerError(f"The server at {self.url} answered for {name} without the outputs asked for.")
        return tensors

    def predict(self, image: bytes | str | Path, name: str | None = None) -> Result:
        """Everything about one image.

        Args:
            image: encoded bytes, or the path of a JPEG, PNG or BMP.
            name: what error messages call it; the path by default.

        Raises:
            UserError: as `infer`; also `ImageRefusedError` for a file that cannot be read.
        """
        name = name or ("the image" if isinstance(image, bytes) else str(image))
        tensors = self.infer([read_image(image)], name=name)
        return _result(tensors, self.classes())

    def predict_many(
        self, images: Iterable[bytes | str | Path], in_flight: int = 4
    ) -> Iterator[Result | ImageRefusedError | DeadlineExceededError]:
        """Everything about many images, in their order, a bounded number of them on the way at a time.

        Yields:
            A result, or what went wrong with that image; the others are answered all the same.

        Raises:
            ServerError: the server is absent or cannot answer; what was yielded before stays good.
        """
        with ThreadPoolExecutor(in_flight) as pool:
            pending: deque[Future[Result | ImageRefusedError | DeadlineExceededError]] = deque()
            try:
                for image in images:
                    pending.append(pool.submit(self._attempt, image))
                    if len(pending) > in_flight:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _attempt(self, image: bytes | str | Path) -> Result | ImageRefusedError | DeadlineExceededError:
        try:
            return self.predict(image)
        except (ImageRefusedError, DeadlineExceededError) as error:
            return error

    def _explain(self, error: Exception, name: str) -> UserError:
        """One sentence for what tritonclient raised."""
        if not isinstance(error, self._grpc.InferenceServerException):
            return ServerError(f"The server at {self.url} cannot be asked ({type(error).__name__}).")
        status = str(error.status() or "").removeprefix("StatusCode.")
        message = str(error.message() or "").strip()
        if status == "INVALID_ARGUMENT":
            return ImageRefusedError(f"{name}: {_sentence(message)}.")
        if status == "DEADLINE_EXCEEDED":
            return DeadlineExceededError(
                f"{name}: no answer from {self.url} within {self.deadline:g} s; ask again later."
            )
        if status == "NOT_FOUND" or "unknown model" in message:
            return ServerError(
                f"The server at {self.url} does not serve the model {MODEL}; "
                "give it a repository that `mbdcnn export` wrote."
            )
        if status == "UNAVAILABLE" and ("connect" in message or "address" in message or "resol" in message):
            return ServerError(
                f"No server answers at {self.url}; start one with `mbdcnn serve --repository REPO` or correct --url."
            )
        if status in ("UNAVAILABLE", "INTERNAL", "CANCELLED"):
            return ServerError(
                f"The server at {self.url} failed on {name} ({status}); it may be restarting, ask again."
            )
        return ServerError(f"The server at {self.url} could not answer for {name} ({status or 'no status'}).")


def wait_until_ready(url: str, seconds: float) -> None:
    """Wait for a server that is still starting, until it has answered a tiny image.

    Args:
        url: `HOST:PORT` of the server's gRPC address.
        seconds: to wait at most; 0 does not even ask.

    Raises:
        UserError: not an address, or no answer in time.
    """
    end = time.monotonic() + seconds
    with Client(url, deadline=5.0) as client:
        while seconds > 0:
            try:
                client.infer([TINY_IMAGE], ["PROBABILITIES"])
                return
            except (ServerError, DeadlineExceededError):
                if time.monotonic() > end:
                    raise
            time.sleep(0.2)


def read_image(image: bytes | str | Path) -> bytes:
    """An image's encoded bytes, refused before sending where the server would refuse them for their size.

    Raises:
        ImageRefusedError: missing, unreadable, empty or too large.
    """
    if isinstance(image, bytes):
        size, name = len(image), "the image"
    else:
        path, name = Path(image), str(image)
        try:
            if not path.is_file():
                raise ImageRefusedError(f"{name}: there is no such file.")
            size = path.stat().st_size
        except OSError as error:
            raise ImageRefusedError(f"{name}: cannot be read ({error.strerror}).") from None
    if size == 0:
        raise ImageRefusedError(f"{name}: the image is empty.")
    if size > MAX_BYTES:
        raise ImageRefusedError(f"{name}: the image file has {size} bytes, more than {MAX_BYTES}.")
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise ImageRefusedError(f"{name}: cannot be read ({error.strerror}).") from None


def _sentence(message: str) -> str:
    """The model's own words without the path through the ensemble that Triton puts before them."""
    if message.startswith("in ensemble"):
        message = message.partition(", ")[2]
    if message.startswith("Failed to process the request(s) for model"):
        message = message.partition("message: ")[2]
    return message.strip().rstrip(".") or "the server refuses it without a reason"


def _result(tensors: dict[str, np.ndarray], classes: Sequence[str]) -> Result:
    """What the tensors of one image say."""
    one: dict[str, Any] = {name: tensor[0] for name, tensor in tensors.items()}
    probabilities = {name: float(p) for name, p in zip(classes, one["PROBABILITIES"], strict=True)}
    mask = np.asarray(Image.open(io.BytesIO(one["MASK_PNG"].item()), formats=("PNG",)))
    return Result(
        label=classes[int(np.argmax(one["PROBABILITIES"]))],
        probabilities=probabilities,
        coarse_mask=one["COARSE_MASK"][0],
        cam=one["CAM"][0],
        lesion_probability=one["LESION_PROBABILITY"][0],
        mask=mask,
    )


def _tiny_image() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 150, 130)).save(buffer, "PNG")
    return buffer.getvalue()


TINY_IMAGE = _tiny_image()
