"""How much the networks doubt an answer: of the mask, of the class, and of the picture itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mbdcnn.preprocessing import MASK_THRESHOLD

UNKNOWN = -1.0  # unfamiliarity where nothing was measured that a picture could be compared with


def mask_doubt(probability: Tensor) -> Tensor:
    """One minus the Jaccard index that the mask can expect if the probability map is right.

    With p the map and m the mask p > 0.5, the expected overlap is sum(p m) and the expected union sum(p + m - p m); the
    ratio of expectations stands for the expectation of the ratio (as the soft Dice confidence of Borges et al., 2024).

    Args:
        probability: `(B, 1, S, S)` of lesion, in [0, 1].

    Returns:
        `(B, 1)` float32 in [0, 1]; 1 where the mask is empty.
    """
    p = probability.float()
    m = (p > MASK_THRESHOLD).float()
    shared = (p * m).sum((2, 3))
    return 1 - shared / (p + m - p * m).sum((2, 3)).clamp(min=1e-6)


def class_doubt(probabilities: Tensor) -> Tensor:
    """One minus the largest probability: `(B, 1)` of `(B, n)`; where they are calibrated, the chance of being wrong."""
    return 1 - probabilities.amax(1, keepdim=True)


class Familiarity(nn.Module):
    """How far a picture lies from the training images, by mask-CN's pooled features.

    The Mahalanobis distance to the training images under a covariance that has its r largest principal axes and one
    variance for all others (probabilistic PCA), as a share of `limit`: the distance that 95 % of the validation images
    do not exceed.

    Args:
        mean: `(C,)` of the training images' features.
        components: `(r, C)`, orthonormal principal axes.
        variances: `(r,)` along them.
        noise: variance along any other axis.
        limit: the distance that counts as 1.
    """

    def __init__(self, mean: Tensor, components: Tensor, variances: Tensor, noise: Tensor, limit: Tensor) -> None:
        super().__init__()
        for name, tensor in zip(TENSORS, (mean, components, variances, noise, limit), strict=True):
            self.register_buffer(name, tensor.detach().to(torch.float32).clone())

    def distance(self, pooled: Tensor) -> Tensor:
        """Mahalanobis distance `(B, 1)` of features `(B, C)`."""
        mean, components, variances, noise, _ = (self.get_buffer(name) for name in TENSORS)
        x = pooled.float() - mean
        along = x @ components.T
        rest = (x * x).sum(1, keepdim=True) - (along * along).sum(1, keepdim=True)
        return ((along * along / variances).sum(1, keepdim=True) + rest.clamp(min=0) / noise).sqrt()

    def forward(self, pooled: Tensor) -> Tensor:
        """Unfamiliarity `(B, 1)`: 0 is the training images' mean, above 1 is unlike 95 % of the validation images."""
        return self.distance(pooled) / self.get_buffer("limit")


TENSORS = ("mean", "components", "variances", "noise", "limit")


class Calibration(nn.Module):
    """What makes the networks' answers measured ones: how they are asked, a temperature, what the training looks like.

    Args:
        temperature: by which logits are divided, above 0; it leaves the largest where it is, and so the decision and
            the activation map.
        familiarity: None where it was not measured.
        views: of an image that each network is asked about, 1, 2 or 4 (`mbdcnn.networks.views`).
    """

    familiarity: Familiarity | None

    def __init__(self, temperature: float = 1.0, familiarity: Familiarity | None = None, views: int = 1) -> None:
        super().__init__()
        self.views = views
        self.temperature = temperature
        self.familiarity = familiarity

    def forward(self, logits: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities `(B, n)`, class doubt `(B, 1)` and unfamiliarity `(B, 1)` (`UNKNOWN` where not measured).

        Args:
            logits: `(B, n)`.
            pooled: `(B, C)`, mask-CN's last features averaged over the image.
        """
        probabilities = (logits / self.temperature).softmax(1)
        if self.familiarity is None:
            unfamiliarity = torch.full_like(logits[:, :1], UNKNOWN)
        else:
            unfamiliarity = self.familiarity(pooled)
        return probabilities, class_doubt(probabilities), unfamiliarity
