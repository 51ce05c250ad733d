"""Ask a Triton server that serves an exported model repository, from threads (`Client`) or asyncio (`AsyncClient`).

Works without PyTorch. The tensors are plain KServe v2: any `tritonclient` can send `IMAGE` (BYTES, `[n, 1]`,
a JPEG, PNG or BMP each) to the model `mbdcnn` and ask for any of `OUTPUTS`.
"""

from serve.client._aio import AsyncClient
from serve.client._connection import BATCH, TlsFiles
from serve.client._errors import (
    AnswerLostError,
    DeadlineExceededError,
    ImageRefusedError,
    NotAnsweredError,
    ServerBusyError,
    ServerError,
)
from serve.client._images import ImageLike, image_files, read_image
from serve.client._result import OUTPUTS, Answer, Result
from serve.client._retry import Retry
from serve.client._sync import Client, wait_until_ready
from serve.probe import MODEL, TINY_IMAGE

__all__ = [
    "BATCH",
    "MODEL",
    "OUTPUTS",
    "TINY_IMAGE",
    "Answer",
    "AnswerLostError",
    "AsyncClient",
    "Client",
    "DeadlineExceededError",
    "ImageLike",
    "ImageRefusedError",
    "NotAnsweredError",
    "Result",
    "Retry",
    "ServerBusyError",
    "ServerError",
    "TlsFiles",
    "image_files",
    "read_image",
    "wait_until_ready",
]
