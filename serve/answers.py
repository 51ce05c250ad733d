"""A model repository's networks as the evaluation asks them: what `mbdcnn evaluate --repository` scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mbdcnn.networks import Prediction
from mbdcnn.preprocessing import Preprocessing
from serve._graphs import CHAIN
from serve._sessions import ask, open_network
from serve.verify import verify


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
        self._sessions = {name: open_network(repository, name, self.version) for name in CHAIN}

    def __call__(self, images: Tensor) -> Prediction:
        """What the ensemble says of normalised images `(B, 3, S, S)`; of doubts what its version has."""
        tensors: dict[str, np.ndarray] = {"image": images.numpy()}
        for session in self._sessions.values():
            tensors |= ask(session, tensors)
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
