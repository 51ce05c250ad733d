"""Triton Python model: an encoded image to everything that the ensemble answers, in one process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from backlog import Gate  # the export's copies, beside this file
from images import Reader, mask_pngs, parameter, read_batch
from network import Chain, joined
from preprocessing import ImageError

# what of the networks each output is made from
_SOURCES = {
    "PROBABILITIES": "probabilities",
    "COARSE_MASK": "mask_out",
    "CAM": "cam_out",
    "LESION_PROBABILITY": "lesion_out",
    "MASK_PNG": "lesion_out",
    "MASK_DOUBT": "mask_doubt",
    "CLASS_DOUBT": "class_doubt",
    "UNFAMILIARITY": "unfamiliarity",
}


class TritonPythonModel:
    """`IMAGE (n, 1)` bytes -> the outputs of `mbdcnn`, as far as they are asked for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the networks, which lie in this version's folders of their own models."""
        here = Path(__file__).resolve().parent  # a served version may be a link
        self._gate = Gate((args["model_name"],), int(parameter(args, "most_waiting")))
        self._reader = Reader.configured(args)
        self._chain = Chain(here.parents[1], here.name)

    def execute(self, requests: list) -> list:
        """Run the usable requests of a batch as one; a bad image costs only its own request."""
        if not self._gate.is_open():
            return [_failed("Exceeds maximum queue size", pb_utils.TritonError.UNAVAILABLE) for _ in requests]
        responses, usable = [None] * len(requests), []
        for position, request in enumerate(requests):
            encoded = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().reshape(-1)
            try:
                usable.append((position, *read_batch(encoded, self._reader.read)))
            except ImageError as error:
                responses[position] = _failed(str(error), pb_utils.TritonError.INVALID_ARG)
        if usable:
            asked = [set(requests[position].requested_output_names()) for position, *_ in usable]
            for (position, *_), response in zip(usable, self._answers(usable, asked), strict=True):
                responses[position] = response
        return responses

    def _answers(self, usable: list, asked: list) -> list:
        names = sorted({_SOURCES[name] for name in set().union(*asked)})
        try:
            results = self._chain.run(names, joined([images for _, images, _ in usable]))
        except Exception as error:
            pb_utils.Logger.log_error(f"the networks failed: {error}")
            return [_failed("the networks failed on this input", pb_utils.TritonError.INTERNAL) for _ in usable]
        responses, start = [], 0
        for (_, images, sizes), wanted in zip(usable, asked, strict=True):
            own = {name: np.ascontiguousarray(results[name][start : start + len(images)]) for name in names}
            start += len(images)
            outputs = {name: own[source] for name, source in _SOURCES.items() if name in wanted}
            if "MASK_PNG" in outputs:
                outputs["MASK_PNG"] = mask_pngs(outputs["MASK_PNG"], sizes)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor(*item) for item in outputs.items()]))
        return responses


def _failed(sentence: str, code: int) -> pb_utils.InferenceResponse:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(sentence, code))
