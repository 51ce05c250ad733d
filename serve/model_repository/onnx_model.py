"""Triton Python model that runs the ONNX network beside it; copied by the export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Runs `model.onnx`, whose tensors bear the names that the configuration gives them."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the network with one thread: instances run in parallel, and spinning threads starve them."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        path = str(Path(__file__).parent / "model.onnx")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = [tensor.name for tensor in self._session.get_inputs()]

    def execute(self, requests: list) -> list:
        """Run the requests of a batch as one, computing only the outputs that one of them asks for."""
        wanted = [list(request.requested_output_names()) for request in requests]
        names = sorted(set().union(*wanted))
        parts = [[_tensor(request, name) for name in self._inputs] for request in requests]
        lengths = [len(part[0]) for part in parts]
        feed = {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(self._inputs)}
        try:
            results = dict(zip(names, self._session.run(names, feed), strict=True))
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
