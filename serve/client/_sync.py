"""The client for programs with threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from serve.client._connection import BATCH, MOST_SERVERS, Connection, Reply, TlsFiles
from serve.client._errors import AnswerLostError, ImageRefusedError, NotAnsweredError, ServerBusyError, ServerError
from serve.client._images import ImageLike, name_of, pictures, read_image
from serve.client._result import OUTPUTS, Answer, Result
from serve.client._retry import Retry
from serve.probe import MODEL, TINY_IMAGE


class Client(Connection):
    """A connection to one server; safe to use from several threads. Its arguments are those of `Connection`.

    Every method raises `UserError`s: `NotAnsweredError`s where one image has no answer (refused, too late, queue full,
    or lost with the server), `ServerError` where none would have one.
    """

    def _open(self) -> Any:
        self._closed = threading.Event()
        return self._grpc.InferenceServerClient(**self._channel())

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; requests on the way end as lost."""
        self._closed.set()
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
        """
        return self._ask(images, outputs, name).tensors

    def _ask(self, images: Sequence[bytes], outputs: Sequence[Any], name: str) -> Reply:
        request = self._request(images, outputs)
        attempts = self._attempts(name)
        while True:
            try:
                answer = self._client.infer(**request, **attempts.limits())
            except self._grpc.InferenceServerException as error:
                pause = attempts.pause_after(error)
            else:
                return self._reply(answer, request, name)
            if self._closed.wait(pause):
                raise AnswerLostError(f"{name}: the client was closed before an answer came.")

    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of `PROBABILITIES`, as the repository's `labels.txt` has them.

        Asked with a tiny image of the version that the server has now.
        """
        return self._learn_classes(self._ask([TINY_IMAGE], [self._ask_for_classes()], "the names of the classes"))

    def _read(self, reply: Reply, name: str) -> list[Result]:
        """One result for each image; asks for the classes once for each version."""
        for _ in range(MOST_SERVERS):
            if self._knows_classes_of(reply):
                break
            self.classes()
        return self._results(reply, name)

    def predict(self, image: ImageLike, name: str | None = None, outputs: Sequence[str] = OUTPUTS) -> Result:
        """What the networks say of one image.

        Args:
            image: encoded bytes, or the path of a JPEG, PNG or BMP.
            name: what error messages call it; the path by default.
            outputs: some of `OUTPUTS`.
        """
        name = name or name_of(image)
        (result,) = self._read(self._ask([read_image(image)], outputs, name), name)
        return result

    def predict_batch(self, images: Sequence[ImageLike], outputs: Sequence[str] = OUTPUTS) -> list[Answer]:
        """Ask about several images, 16 in one request; a bad one has its own error and the others their results.

        Raises:
            ServerError: the server is absent or cannot answer.
        """
        answers: list[Answer] = []
        for start in range(0, len(images), BATCH):
            answers += self._whole(start, images[start : start + BATCH], outputs)
        return answers

    def _whole(self, start: int, images: Sequence[ImageLike], outputs: Sequence[str]) -> list[Answer]:
        """One request for all; where an image is refused, one for each."""
        try:
            reply = self._ask([read_image(image) for image in images], outputs, "the batch")
            rows = self._read(reply, "the batch")
        except ImageRefusedError:
            return [self._answer(start + i, image, outputs) for i, image in enumerate(images)]
        except NotAnsweredError as error:
            return [Answer(start + i, name_of(image), error=error) for i, image in enumerate(images)]
        return [Answer(start + i, name_of(image), row) for i, (image, row) in enumerate(zip(images, rows, strict=True))]

    def stream(
        self,
        images: str | Path | Iterable[ImageLike],
        *,
        outputs: Sequence[str] = OUTPUTS,
        in_flight: int = 8,
        ordered: bool = True,
    ) -> Iterator[Answer]:
        """Ask about many images, a bounded number of them on the way at a time.

        Args:
            images: a folder, or encoded bytes and paths; taken one by one, as answers come.
            outputs: some of `OUTPUTS`.
            in_flight: how many are on the way, or answered and not yet taken.
            ordered: answers come in the images' order, or else as they are ready.

        Yields:
            A result, or what went wrong with that image; the others are answered all the same.

        Raises:
            ServerError: the server is absent or cannot answer; what was yielded before stays good.
        """
        pool = ThreadPoolExecutor(in_flight)
        pending: list[Future[Answer]] = []
        try:
            for index, image in enumerate(pictures(images)):
                if len(pending) == in_flight:
                    yield self._next(pending, ordered)
                pending.append(pool.submit(self._answer, index, image, outputs))
            while pending:
                yield self._next(pending, ordered)
        finally:  # whoever leaves early, for Ctrl-C or an absent server, need not wait for what is on the way
            pool.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _next(pending: list[Future[Answer]], ordered: bool) -> Answer:
        future = pending[0] if ordered else next(iter(wait(pending, return_when=FIRST_COMPLETED).done))
        pending.remove(future)
        return future.result()

    def _answer(self, index: int, image: ImageLike, outputs: Sequence[str]) -> Answer:
        name = name_of(image)
        try:
            return Answer(index, name, self.predict(image, name, outputs))
        except NotAnsweredError as error:
            return Answer(index, name, error=error)


def wait_until_ready(url: str, seconds: float, *, model: str = MODEL, tls: TlsFiles | None = None) -> None:
    """Wait for a server that is still starting, until it has answered a tiny image, or has no room for it.

    Args:
        url: `HOST:PORT` of the server's gRPC address.
        seconds: to wait at most; 0 asks once.
        model: that must answer.
        tls: as for `Client`.

    Raises:
        UserError: not an address, or no answer in time.
    """
    end = time.monotonic() + seconds
    with Client(url, 5.0, model=model, tls=tls, retry=Retry(attempts=1)) as client:
        while True:
            try:
                client.infer([TINY_IMAGE], ["PROBABILITIES"])
                return
            except ServerBusyError:  # it is up
                return
            except (ServerError, NotAnsweredError):
                if time.monotonic() >= end:
                    raise
            time.sleep(0.2)
