"""Triton Python model: lesion probability to a mask at the image's own size."""

from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils
from images import mask_pngs, most_pixels  # the export's copy, beside this file


class TritonPythonModel:
    """`lesion (n, 1, S, S)` float32, `native_size (n, 2)` int32 -> `mask_png (n, 1)` bytes of 0 and 255."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the largest size that a mask may have."""
        self._max_pixels = most_pixels(args)

    def execute(self, requests: list) -> list:
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        lesions = pb_utils.get_input_tensor_by_name(request, "lesion").as_numpy()
        sizes = pb_utils.get_input_tensor_by_name(request, "native_size").as_numpy()
        # this model can be asked without preprocess before it, so its sizes are not to be trusted
        if sizes.min() < 1 or sizes.astype(np.int64).prod(axis=1).max() > self._max_pixels:
            sentence = f"native_size must be positive and hold at most {self._max_pixels} pixels"
            error = pb_utils.TritonError(sentence, pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=error)
        return pb_utils.InferenceResponse([pb_utils.Tensor("mask_png", mask_pngs(lesions, sizes))])
