"""Exported networks in ONNX Runtime, one by one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mbdcnn.errors import UserError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def open_network(repository: Path, model: str, version: int) -> InferenceSession:
    """A network of a model repository, on the CPU.

    Raises:
        UserError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError("onnxruntime is not installed; install it with `pip install 'mbdcnn[serve]'`.") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others' threads share the cores
    path = repository / model / str(version) / "model.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def ask(network: InferenceSession, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs of a network by name; of the tensors it takes those that it knows as inputs."""
    feed = {tensor.name: tensors[tensor.name] for tensor in network.get_inputs()}
    names = [tensor.name for tensor in network.get_outputs()]
    return dict(zip(names, network.run(names, feed), strict=True))
