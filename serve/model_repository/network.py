"""One ONNX network on one CPU core; copied by the export beside the models that run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime


class Network:
    """An ONNX file that is open for inference.

    One thread: instances run in parallel, and spinning threads would starve them.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._run_options = onnxruntime.RunOptions()
        self._run_options.only_execute_path_to_fetches = True  # else every node runs, whatever is asked for
        self.inputs = tuple(tensor.name for tensor in self._session.get_inputs())

    def run(self, outputs: Sequence[str], feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute some of the outputs, and no more than they need."""
        results = self._session.run(list(outputs), dict(feed), self._run_options)
        return dict(zip(outputs, results, strict=True))
