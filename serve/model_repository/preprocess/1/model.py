"""Triton Python model: encoded image bytes to normalised network input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from preprocessing import (  # the export's copy, beside this file
    ImageError,
    Preprocessing,
    decode_image,
    prepare,
)


class TritonPythonModel:
    """`encoded (n, 1)` bytes -> `image (n, 3, S, S)` float32, `native_size (n, 2)` int32 height and width."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the specification that the export wrote."""
        spec = json.loads((Path(__file__).parent / "preprocessing.json").read_text())
        self._max_bytes = spec["max_bytes"]
        self._max_pixels = spec["max_pixels"]
        self._spec = Preprocessing(spec["image_size"], tuple(spec["mean"]), tuple(spec["std"]))

    def execute(self, requests: list) -> list:
        """Answer each request by itself, so that a bad image costs only its own request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        encoded = pb_utils.get_input_tensor_by_name(request, "encoded").as_numpy().reshape(-1)
        images, sizes = [], []
        for position, data in enumerate(encoded, 1):
            try:
                image, size = self._one(data)
            except ImageError as error:
                which = f"image {position} of {len(encoded)}: " if len(encoded) > 1 else ""
                return _refusal(f"{which}{error}")
            images.append(image)
            sizes.append(size)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("image", np.stack(images)),
                pb_utils.Tensor("native_size", np.array(sizes, dtype=np.int32)),
            ]
        )

    def _one(self, data: bytes) -> tuple[np.ndarray, tuple[int, ...]]:
        if len(data) > self._max_bytes:
            raise ImageError(f"the image file has {len(data)} bytes, more than {self._max_bytes}")
        try:
            image = decode_image(data, self._max_pixels)
            return prepare(image, self._spec), image.shape[:2]
        except MemoryError:
            raise ImageError("the image is too large for this server's memory") from None


def _refusal(sentence: str) -> pb_utils.InferenceResponse:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(sentence, pb_utils.TritonError.INVALID_ARG))
