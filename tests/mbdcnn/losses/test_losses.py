"""The losses against plain loops over the paper's equations, in float64."""

import pytest
import torch
from torch import Tensor

from mbdcnn.losses import HybridLoss, dice_loss, rank_loss


def literal_dice(p: Tensor, y: Tensor, eps: float = 1e-5) -> Tensor:
    losses = []
    for image, truth in zip(p, y, strict=True):
        overlap, total = torch.zeros(()), torch.zeros(())
        for a, b in zip(image.flatten(), truth.flatten(), strict=True):
            overlap, total = overlap + a * b, total + a + b
        losses.append(1 - 2 * overlap / (total + eps))
    return torch.stack(losses).mean()


def literal_rank(p: Tensor, y: Tensor, top_k: int, margin: float) -> Tensor:
    losses = []
    for image, truth in zip(p.flatten(1), y.flatten(1), strict=True):
        background = sorted(image[truth == 0], key=Tensor.item, reverse=True)[:top_k]
        lesion = sorted(image[truth == 1], key=Tensor.item)[:top_k]
        loss = image.sum() * 0
        for h0 in background:
            for h1 in lesion:
                loss = loss + torch.relu(h0 - h1 + margin) / (len(background) * len(lesion))
        losses.append(loss)
    return torch.stack(losses).mean()


def batch(case: str) -> tuple[Tensor, Tensor]:
    """Probabilities and masks `(3, 1, 9, 8)` in float64."""
    generator = torch.Generator().manual_seed(7)
    p = torch.rand(3, 1, 9, 8, generator=generator, dtype=torch.float64)
    y = (torch.rand(3, 1, 9, 8, generator=generator) > 0.6).double()
    if case == "tiny":
        y = torch.zeros_like(y)
        y[:, :, 4, 3:5] = 1
    if case == "empty":
        y[1] = 0
    if case == "full":
        y[1] = 1
    return p, y


@pytest.mark.parametrize("case", ["random", "tiny", "empty", "full"])
def test_losses_equal_the_equations_in_value_and_gradient(case: str) -> None:
    p, y = batch(case)
    for ours, literal in (
        (lambda q: dice_loss(q, y), lambda q: literal_dice(q, y)),
        (lambda q: rank_loss(q, y, 5, 0.3), lambda q: literal_rank(q, y, 5, 0.3)),
        (lambda q: rank_loss(q, y, 1000, 0.2), lambda q: literal_rank(q, y, 1000, 0.2)),
    ):
        a, b = p.clone().requires_grad_(), p.clone().requires_grad_()
        left, right = ours(a), literal(b)
        torch.testing.assert_close(left, right)
        left.backward()
        right.backward()
        torch.testing.assert_close(a.grad, b.grad)


def test_hybrid_is_the_weighted_sum() -> None:
    p, y = batch("random")
    loss = HybridLoss(lambda_rank=0.5, top_k=4, margin=0.1)
    torch.testing.assert_close(loss(p, y), dice_loss(p, y) + 0.5 * rank_loss(p, y, 4, 0.1))
    assert set(loss.parts(p, y)) == {"dice", "rank"}


def test_half_precision_input_is_computed_in_float32() -> None:
    p, y = batch("random")
    half = p.bfloat16()
    torch.testing.assert_close(dice_loss(half, y), dice_loss(half.float(), y))
    assert rank_loss(half, y).dtype == torch.float32


def test_a_perfect_mask_costs_nothing() -> None:
    _, y = batch("random")
    assert dice_loss(y, y).item() == pytest.approx(0, abs=1e-6)
    assert rank_loss(y, y).item() == 0


def test_the_worst_mask_costs_the_most() -> None:
    _, y = batch("random")
    assert dice_loss(1 - y, y).item() == pytest.approx(1)
    assert rank_loss(1 - y, y, margin=0.3).item() == pytest.approx(1.3)
