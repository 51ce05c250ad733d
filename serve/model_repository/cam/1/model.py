"""Triton Python model that runs the ONNX network beside it; copied by the export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from network import Network, joined  # the export's copy, beside this file


class TritonPythonModel:
    """Runs `model.onnx`, whose tensors bear the names that the configuration gives them."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the network."""
        self._network = Network(Path(__file__).parent / "model.onnx")

    def execute(self, requests: list) -> list:
        """Run the requests of a batch as one, computing only the outputs that one of them asks for."""
        wanted = [list(request.requested_output_names()) for request in requests]
        names = sorted(set().union(*wanted))
        parts = [[_tensor(request, name) for name in self._network.inputs] for request in requests]
        lengths = [len(part[0]) for part in parts]
        tensors = {name: joined([part[i] for part in parts]) for i, name in enumerate(self._network.inputs)}
        try:
            results = self._network.run(names, tensors)
        except Exception as error:
            if len(requests) > 1:  # one of them is at fault; the others keep their answers
                return [self.execute([request])[0] for request in requests]
            pb_utils.Logger.log_error(f"the network failed: {error}")
            failure = pb_utils.TritonError("the network failed on this input", pb_utils.TritonError.INTERNAL)
            return [pb_utils.InferenceResponse(error=failure)]
        responses, start = [], 0
        for asked, length in zip(wanted, lengths, strict=True):
            stop = start + length
            outputs = [pb_utils.Tensor(name, np.ascontiguousarray(results[name][start:stop])) for name in asked]
            responses.append(pb_utils.InferenceResponse(outputs))
            start = stop
        return responses


def _tensor(request: pb_utils.InferenceRequest, name: str) -> np.ndarray:
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()
