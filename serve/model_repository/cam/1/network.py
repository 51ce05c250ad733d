"""ONNX networks on one CPU core; copied by the export beside the models that run them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

# what the ensemble asks one after the other
CHAIN = ("coarse_sn", "mask_cn", "cam", "enhanced_sn")


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
        self.inputs = tuple(tensor.name for tensor in self._session.get_inputs())
        self.outputs = tuple(tensor.name for tensor in self._session.get_outputs())

    def run(self, outputs: Sequence[str], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Some of the outputs, from tensors of which it takes its inputs."""
        feed = {name: tensors[name] for name in self.inputs}
        return dict(zip(outputs, self._session.run(list(outputs), feed), strict=True))


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Batches as one."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)  # which copies even a single one


class Chain:
    """The four networks one after the other, as far as the outputs that are wanted need.

    ONNX Runtime runs the whole of a graph whichever outputs are asked for, so that a single graph would skip nothing;
    the four cost 1 to 2 % more than one.

    Args:
        repository: holds `<network>/<version>/model.onnx`.
        version: of each.
    """

    def __init__(self, repository: Path, version: str) -> None:
        self.networks = {name: Network(repository / name / version / "model.onnx") for name in CHAIN}

    def run(self, outputs: Collection[str], image: np.ndarray) -> dict[str, np.ndarray]:
        """All tensors up to those that are wanted, from images `(n, 3, S, S)`."""
        tensors = {"image": image}
        for network in self.networks.values():
            if all(name in tensors for name in outputs):
                break
            tensors |= network.run(network.outputs, tensors)
        return tensors
