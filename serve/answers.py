"""A model repository's networks as the evaluation asks them: what `mbdcnn evaluate --repository` scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mbdcnn.errors import UserError
from mbdcnn.networks import Prediction
from mbdcnn.preprocessing import Preprocessing
from serve._graphs import CHAIN
from serve.verify import verify

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class RepositoryNetworks:
    """The networks of the version that a repository serves, through ONNX Runtime.

    Attributes:
        classes: names of mask-CN's n classes.
        preprocessing: how images become network input.
        version: of the repository.

    Args:
        repository: a folder that `mbdcnn export` wrote.

    Raises:
        UserError: it is none, a file is not as it was exported, or ONNX Runtime is not installed.
    """

    def __init__(self, repository: Path) -> None:
        manifest = verify(repository)
        spec = manifest["preprocessing"]
        self.version = int(manifest["version"])
        self.classes = tuple(manifest["classes"])
        self.preprocessing = Preprocessing(spec["image_size"], tuple(spec["mean"]), tuple(spec["std"]))
        self._sessions = {name: _session(repository / name / str(self.version) / "model.onnx") for name in CHAIN}

    def __call__(self, images: Tensor) -> Prediction:
        """What the ensemble says of normalised images `(B, 3, S, S)`; of doubts what its version has."""
        tensors: dict[str, np.ndarray] = {"image": images.numpy()}
        for session in self._sessions.values():
            feed = {tensor.name: tensors[tensor.name] for tensor in session.get_inputs()}
            names = [tensor.name for tensor in session.get_outputs()]
            tensors |= zip(names, session.run(names, feed), strict=True)
        found = {name: torch.from_numpy(np.asarray(tensor)) for name, tensor in tensors.items()}
        return Prediction(
            # of an export from before it had the probability, the mask: its rim is a pixel of the network's wide
            coarse_probability=found.get("coarse", found["mask"]),
            coarse_mask=found["mask_out"].float(),
            logits=found["logits"],
            probabilities=found["probabilities"],
            cam=found["cam"],
            lesion_probability=found["lesion"],
            class_doubt=found.get("class_doubt"),
            unfamiliarity=found.get("unfamiliarity"),
            mask_doubt=found.get("mask_doubt"),
        )


def _session(path: Path) -> InferenceSession:
    try:
        import onnxruntime
    except ImportError:
        raise UserError("onnxruntime is not installed; install it with `pip install 'mbdcnn[serve]'`.") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoding threads share the cores
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
