"""Dice loss, rank loss and their sum."""

from mbdcnn.losses.dice import dice_loss
from mbdcnn.losses.hybrid import HybridLoss
from mbdcnn.losses.rank import rank_loss

__all__ = ["HybridLoss", "dice_loss", "rank_loss"]
