"""Triton Python model: encoded image bytes to normalised network input."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils
from backlog import Gate  # the export's copies, beside this file
from images import Reader, parameter, read_batch
from preprocessing import ImageError

_BEHIND = ("coarse_sn", "mask_cn", "cam", "enhanced_sn", "postprocess")


class TritonPythonModel:
    """`encoded (n, 1)` bytes -> `image (n, 3, S, S)` float32, `native_size (n, 2)` int32 height and width."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the specification that the export wrote, and choose the decoder."""
        most_waiting = parameter(args, "most_waiting")
        self._gate = Gate(_BEHIND, int(most_waiting)) if most_waiting else None
        self._reader = Reader.configured(args)
        if parameter(args, "decoder") == "dali":
            from dali_reader import DaliReader

            device = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
            self._reader = DaliReader(**vars(self._reader), device=device)

    def execute(self, requests: list) -> list:
        """Answer each request by itself, so that a bad image costs only its own request."""
        if self._gate:
            self._gate.wait()
        return [self._answer(request) for request in requests]

    def _answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        encoded = pb_utils.get_input_tensor_by_name(request, "encoded").as_numpy().reshape(-1)
        try:
            images, sizes = read_batch(encoded, self._reader.read)
        except ImageError as error:
            refusal = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=refusal)
        return pb_utils.InferenceResponse([pb_utils.Tensor("image", images), pb_utils.Tensor("native_size", sizes)])
