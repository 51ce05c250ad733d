"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from serve.client._connection import BATCH, MOST_SERVERS, Connection, Reply
from serve.client._errors import ImageRefusedError, NotAnsweredError
from serve.client._images import ImageLike, name_of, pictures, read_image
from serve.client._result import OUTPUTS, Answer, Result
from serve.probe import TINY_IMAGE


class AsyncClient(Connection):
    """A connection to one server, of one event loop. What its methods take, give and raise is told at `Client`'s."""

    def _open(self) -> Any:
        return None  # gRPC binds a channel to the loop that runs, and none may run yet

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; requests on the way end as lost."""
        if self._client is not None:
            await self._client.close()

    async def infer(
        self, images: Sequence[bytes], outputs: Sequence[str] = OUTPUTS, name: str = "the image"
    ) -> dict[str, np.ndarray]:
        """Send one request and return tensors as they come."""
        return (await self._ask(images, outputs, name)).tensors

    async def _ask(self, images: Sequence[bytes], outputs: Sequence[Any], name: str) -> Reply:
        if self._client is None:
            from tritonclient.grpc import aio

            self._client = aio.InferenceServerClient(**self._channel())
        request = self._request(images, outputs)
        attempts = self._attempts(name)
        while True:
            try:
                answer = await self._client.infer(**request, **attempts.limits())
            except self._grpc.InferenceServerException as error:
                await asyncio.sleep(attempts.pause_after(error))
            else:
                return self._reply(answer, request, name)

    async def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of `PROBABILITIES`."""
        asked = [self._ask_for_classes()]
        return self._learn_classes(await self._ask([TINY_IMAGE], asked, "the names of the classes"))

    async def _read(self, reply: Reply, name: str) -> list[Result]:
        """One result for each image; asks for the classes once for each version."""
        for _ in range(MOST_SERVERS):
            if self._knows_classes_of(reply):
                break
            await self.classes()
        return self._results(reply, name)

    async def predict(self, image: ImageLike, name: str | None = None, outputs: Sequence[str] = OUTPUTS) -> Result:
        """What the networks say of one image; files are read in a thread."""
        name = name or name_of(image)
        data = image if isinstance(image, bytes) else await asyncio.to_thread(read_image, image)
        (result,) = await self._read(await self._ask([read_image(data)], outputs, name), name)
        return result

    async def predict_batch(self, images: Sequence[ImageLike], outputs: Sequence[str] = OUTPUTS) -> list[Answer]:
        """Ask about several images, 16 in one request; a bad one has its own error and the others their results."""
        answers: list[Answer] = []
        for start in range(0, len(images), BATCH):
            answers += await self._whole(start, images[start : start + BATCH], outputs)
        return answers

    async def _whole(self, start: int, images: Sequence[ImageLike], outputs: Sequence[str]) -> list[Answer]:
        """One request for all; where an image is refused, one for each."""
        try:
            data = await asyncio.to_thread(lambda: [read_image(image) for image in images])
            rows = await self._read(await self._ask(data, outputs, "the batch"), "the batch")
        except ImageRefusedError:
            return [await self._answer(start + i, image, outputs) for i, image in enumerate(images)]
        except NotAnsweredError as error:
            return [Answer(start + i, name_of(image), error=error) for i, image in enumerate(images)]
        return [Answer(start + i, name_of(image), row) for i, (image, row) in enumerate(zip(images, rows, strict=True))]

    async def stream(
        self,
        images: str | Path | Iterable[ImageLike],
        *,
        outputs: Sequence[str] = OUTPUTS,
        in_flight: int = 8,
        ordered: bool = True,
    ) -> AsyncIterator[Answer]:
        """Ask about many images, a bounded number of them on the way at a time; leaving early cancels the rest."""
        pending: list[asyncio.Task[Answer]] = []
        try:
            for index, image in enumerate(pictures(images)):
                if len(pending) == in_flight:
                    yield await self._next(pending, ordered)
                pending.append(asyncio.create_task(self._answer(index, image, outputs)))
            while pending:
                yield await self._next(pending, ordered)
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    @staticmethod
    async def _next(pending: list[asyncio.Task[Answer]], ordered: bool) -> Answer:
        if ordered:
            task = pending[0]
        else:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            task = next(iter(done))
        pending.remove(task)
        return await task

    async def _answer(self, index: int, image: ImageLike, outputs: Sequence[str]) -> Answer:
        name = name_of(image)
        try:
            return Answer(index, name, await self.predict(image, name, outputs))
        except NotAnsweredError as error:
            return Answer(index, name, error=error)
