"""The loss that both segmentation networks minimise."""

from __future__ import annotations

from torch import Tensor, nn

from mbdcnn.losses.dice import dice_loss
from mbdcnn.losses.rank import rank_loss


class HybridLoss(nn.Module):
    """L_dice + lambda_rank * L_rank (Xie et al. 2020, section III)."""

    def __init__(self, lambda_rank: float = 0.05, top_k: int = 30, margin: float = 0.3) -> None:
        super().__init__()
        self.lambda_rank = lambda_rank
        self.top_k = top_k
        self.margin = margin

    def parts(self, p: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Both losses, unweighted: `{"dice", "rank"}`, each a scalar; arguments as `forward`."""
        return {"dice": dice_loss(p, y), "rank": rank_loss(p, y, self.top_k, self.margin)}

    def combine(self, parts: dict[str, Tensor]) -> Tensor:
        """The weighted sum of what `parts` returned."""
        return parts["dice"] + self.lambda_rank * parts["rank"]

    def forward(self, p: Tensor, y: Tensor) -> Tensor:
        """The hybrid loss.

        Args:
            p: `(B, 1, H, W)` lesion probabilities.
            y: `(B, 1, H, W)` truth in {0, 1}.

        Returns:
            Scalar, in float32 or wider.
        """
        return self.combine(self.parts(p, y))
