"""What the networks say, as NumPy."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from mbdcnn.errors import UserError
from serve.client._errors import NotAnsweredError

DOUBTS = ("MASK_DOUBT", "CLASS_DOUBT", "UNFAMILIARITY")
OUTPUTS = ("PROBABILITIES", "COARSE_MASK", "CAM", "LESION_PROBABILITY", "MASK_PNG", *DOUBTS)


@dataclass(frozen=True, eq=False)
class Result:
    """What the networks say of one image; what was not asked for is an error to read.

    Attributes:
        tensors: one row of each output that was asked for, by its name.
        classes: in the order of `PROBABILITIES`; empty when that was not asked for.
    """

    tensors: Mapping[str, np.ndarray]
    classes: tuple[str, ...]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[int(np.argmax(self._tensor("PROBABILITIES")))]

    @property
    def probabilities(self) -> dict[str, float]:
        """By class name; they sum to 1."""
        return {name: float(p) for name, p in zip(self.classes, self._tensor("PROBABILITIES"), strict=True)}

    @property
    def coarse_mask(self) -> np.ndarray:
        """`(S, S)` uint8 in {0, 1}, coarse-SN's mask in the squashed frame of the network."""
        return self._tensor("COARSE_MASK")[0]

    @property
    def cam(self) -> np.ndarray:
        """`(h, w)` float32 in [0, 1], the activation map of `label`."""
        return self._tensor("CAM")[0]

    @property
    def lesion_probability(self) -> np.ndarray:
        """`(S, S)` float32 in [0, 1], from enhanced-SN."""
        return self._tensor("LESION_PROBABILITY")[0]

    @property
    def mask_png(self) -> bytes:
        """The lesion mask as the server encoded it: 8-bit PNG, 0 / 255."""
        return self._tensor("MASK_PNG").item()

    @cached_property
    def mask(self) -> np.ndarray:
        """`(H, W)` uint8, 255 on the lesion and 0 elsewhere, at the image's size as displayed; decoded when read."""
        with Image.open(io.BytesIO(self.mask_png), formats=("PNG",)) as image:
            return np.asarray(image)

    @property
    def mask_doubt(self) -> float:
        """One minus the Jaccard index that the mask can expect, in [0, 1]."""
        return float(self._tensor("MASK_DOUBT").item())

    @property
    def class_doubt(self) -> float:
        """One minus the probability of `label`, in [0, 1]."""
        return float(self._tensor("CLASS_DOUBT").item())

    @property
    def unfamiliarity(self) -> float | None:
        """Above 1 where the picture is unlike the training images; None where the repository has not measured it."""
        value = float(self._tensor("UNFAMILIARITY").item())
        return value if value >= 0 else None

    def _tensor(self, name: str) -> np.ndarray:
        if name not in self.tensors:
            raise UserError(f"{name} was not asked for; add it to outputs.")
        return self.tensors[name]


@dataclass(frozen=True, eq=False)
class Answer:
    """One image of several: its result, or why it has none.

    Attributes:
        index: the image's place among those asked about, from 0.
        name: its path, or "the image" for bytes.
        result: None when there is an `error`.
        error: None when there is a `result`.
    """

    index: int
    name: str
    result: Result | None = None
    error: NotAnsweredError | None = None


def results(tensors: Mapping[str, np.ndarray], classes: tuple[str, ...]) -> list[Result]:
    """One result for each row of the tensors of a request."""
    rows = len(next(iter(tensors.values())))
    return [Result({name: tensor[row] for name, tensor in tensors.items()}, classes) for row in range(rows)]
