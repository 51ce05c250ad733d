"""The rank loss against loops over its pairs and against all pairs at once; the hybrid loss against a training step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from _measure import alternate, peak_memory, report
from _training import training_step
from torch import Tensor

from mbdcnn.losses import HybridLoss, rank_loss

BATCH, SIZE, MARGIN = 16, 224, 0.3
GOALS = {
    "pair_loop_over_ours_k30": ">= 10",
    "hybrid_loss_over_training_step": "< 0.03",
    "all_pairs_memory_over_ours_k2000": ">= 10",
}


def literal_rank(p: Tensor, y: Tensor, top_k: int) -> Tensor:
    """Equation 3 as it is written: images, then background pixels, then lesion pixels."""
    loss = p.new_zeros(())
    for image, truth in zip(p.flatten(1), y.flatten(1), strict=True):
        h0, h1 = _hardest(image, truth, top_k)
        pairs = p.new_zeros(())
        for background in h0:
            for lesion in h1:
                pairs = pairs + torch.relu(background - lesion + MARGIN)
        loss = loss + pairs / (len(h0) * len(h1))
    return loss / len(p)


def all_pairs_rank(p: Tensor, y: Tensor, top_k: int) -> Tensor:
    """Equation 3 over a `(B, K, K)` tensor of every pair."""
    regions = [_hardest(image, truth, top_k) for image, truth in zip(p.flatten(1), y.flatten(1), strict=True)]
    h0, h1 = (torch.stack(pixels) for pixels in zip(*regions, strict=True))
    return torch.relu(h0[:, :, None] - h1[:, None, :] + MARGIN).mean()


def _hardest(image: Tensor, truth: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    background, lesion = image[truth == 0], image[truth == 1]
    return (
        background.topk(min(top_k, len(background))).values,
        lesion.topk(min(top_k, len(lesion)), largest=False).values,
    )


def measure(quick: bool) -> dict[str, float]:
    """Forward and backward, float32, on round lesions that a smooth map finds in part."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    row = torch.arange(SIZE)
    radius = torch.linspace(30, 100, BATCH).view(-1, 1, 1, 1)
    y = ((row[:, None] - SIZE / 2) ** 2 + (row - SIZE / 2) ** 2 < radius**2).float().to(device)
    rough = torch.nn.functional.interpolate(torch.randn(BATCH, 1, 14, 14), (SIZE, SIZE), mode="bilinear")
    rough = 2 * rough + 0.1 * torch.randn(BATCH, 1, SIZE, SIZE)  # no two pixels alike: the hardest are the same ones
    p = torch.sigmoid(rough.to(device) + 2 * (y - 0.5))

    def both_ways(loss: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            leaf = p.clone().requires_grad_()
            loss(leaf).backward()
            assert leaf.grad is not None
            return leaf.grad

        return run

    def ours(top_k: int) -> Callable[[], Tensor]:
        return both_ways(lambda q: rank_loss(q, y, top_k, MARGIN))

    loop, pairs = both_ways(lambda q: literal_rank(q, y, 30)), both_ways(lambda q: all_pairs_rank(q, y, 2000))
    torch.testing.assert_close(ours(30)(), loop(), atol=1e-7, rtol=1e-4)
    k30 = alternate(3 if quick else 15, ours_k30=ours(30), pair_loop_k30=loop)
    k2000 = alternate(3 if quick else 15, ours_k2000=ours(2000), all_pairs_k2000=pairs)
    hybrid = HybridLoss()
    step, images = training_step("compact", device), torch.randn(BATCH, 3, SIZE, SIZE, device=device)
    cost = alternate(
        1 if quick else 9, hybrid_loss=both_ways(lambda q: hybrid(q, y)), training_step=partial(step, images, y)
    )
    return {
        "pair_loop_over_ours_k30": k30["pair_loop_k30"] / k30["ours_k30"],
        "hybrid_loss_over_training_step": cost["hybrid_loss"] / cost["training_step"],
        "all_pairs_over_ours_k2000": k2000["all_pairs_k2000"] / k2000["ours_k2000"],
        "all_pairs_memory_over_ours_k2000": peak_memory(pairs) / peak_memory(ours(2000)),
    }


if __name__ == "__main__":
    report("loss", measure, GOALS)
