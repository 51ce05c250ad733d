"""The losses against plain loops over the paper's equations, in float64."""

import pytest
import torch
from torch import Tensor

from mbdcnn.losses import HybridLoss, dice_loss, rank_loss


def literal_dice(p: Tensor, y: Tensor, eps: float = 1e-5) -> Tensor:
    """Equation 2; of the background where there is no lesion."""
    losses = []
    for image, truth in zip(p, y, strict=True):
        if truth.sum() == 0:
            image, truth = 1 - image, 1 - truth
        overlap, total = torch.zeros(()), torch.zeros(())
        for a, b in zip(image.flatten(), truth.flatten(), strict=True):
            overlap, total = overlap + a * b, total + a + b
        losses.append(1 - 2 * overlap / (total + eps))
    return torch.stack(losses).mean()


def literal_rank(p: Tensor, y: Tensor, top_k: int, margin: float) -> Tensor:
    """Equation 3; over the pixels that a region has, 0 where a region has none."""
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
    if case == "learnt":
        p = (p + 2 * y) / 3
    if case == "tiny":
        y = torch.zeros_like(y)
        y[:, :, 4, 3:5] = 1
    if case == "single":
        y = torch.zeros_like(y)
        y[:, :, 8, 7] = 1
    if case == "empty":
        y[1] = 0
    if case == "full":
        y[1] = 1
    return p, y


def value_and_gradient(loss: object, p: Tensor) -> tuple[Tensor, Tensor]:
    p = p.clone().requires_grad_()
    value = loss(p)  # type: ignore[operator]
    value.backward()
    return value.detach(), p.grad


CASES = ["random", "learnt", "tiny", "single", "empty", "full"]


@pytest.mark.parametrize("case", CASES)
def test_dice_equals_the_equation_in_value_and_gradient(case: str) -> None:
    p, y = batch(case)
    torch.testing.assert_close(
        value_and_gradient(lambda q: dice_loss(q, y), p), value_and_gradient(lambda q: literal_dice(q, y), p)
    )


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.5])
@pytest.mark.parametrize("top_k", [1, 5, 9, 30, 1000])  # below, at and above the rows, above the pixels of the image
@pytest.mark.parametrize("case", CASES)
def test_rank_equals_the_equation_in_value_and_gradient(case: str, top_k: int, margin: float) -> None:
    p, y = batch(case)
    torch.testing.assert_close(
        value_and_gradient(lambda q: rank_loss(q, y, top_k, margin), p),
        value_and_gradient(lambda q: literal_rank(q, y, top_k, margin), p),
    )


def test_pairs_that_meet_the_margin_exactly_cost_nothing_and_pull_nowhere() -> None:
    p = torch.tensor([[0.25, 0.25, 0.5, 0.5]]).view(1, 1, 2, 2)
    y = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).view(1, 1, 2, 2)
    value, gradient = value_and_gradient(lambda q: rank_loss(q, y, 30, 0.25), p)
    assert value == 0
    assert gradient.eq(0).all()
    value, gradient = value_and_gradient(lambda q: rank_loss(q, y, 30, 0.5), p)
    assert value == 0.25
    assert gradient.flatten().tolist() == [0.5, 0.5, -0.5, -0.5]


def test_equal_probabilities_share_the_pull_among_k_pixels() -> None:
    p, (_, y) = torch.full((3, 1, 9, 8), 0.5), batch("random")
    value, gradient = value_and_gradient(lambda q: rank_loss(q, y, 4, 0.3), p)
    assert value.item() == pytest.approx(0.3)
    assert (gradient[y == 0] >= 0).all()
    assert (gradient[y == 1] <= 0).all()
    assert gradient.ne(0).sum() == 3 * 2 * 4
    assert gradient[y == 0].sum().item() == pytest.approx(1)


def large_batch() -> tuple[Tensor, Tensor]:
    """Probabilities and round lesions `(2, 1, 224, 224)` in float32: one network that is unsure and one that is not."""
    generator = torch.Generator().manual_seed(3)
    row = torch.arange(224)
    y = ((row[:, None] - 100) ** 2 + (row - 120) ** 2 < 60**2).float().expand(2, 1, -1, -1)
    noise = torch.randn(2, 1, 224, 224, generator=generator)
    return torch.sigmoid(noise + torch.tensor([0.0, 6.0]).view(2, 1, 1, 1) * (y - 0.5)), y


def test_two_thousand_pixels_in_float32_match_all_pairs_in_float64() -> None:
    p, y = large_batch()

    def every_pair(q: Tensor) -> Tensor:
        losses = []
        for image, truth in zip(q.flatten(1), y.flatten(1), strict=True):
            h0, h1 = image[truth == 0].topk(2000).values, image[truth == 1].topk(2000, largest=False).values
            losses.append(torch.relu(h0[:, None] - h1 + 0.3).mean())
        return torch.stack(losses).mean()

    value, gradient = value_and_gradient(lambda q: rank_loss(q, y, 2000), p)
    expected, expected_gradient = value_and_gradient(every_pair, p.double())
    torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-6)
    # pairs within a float's step of the margin may fall on either side: a few of a pixel's 2000 pairs
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=0, atol=3 / 2000**2 / 2)


def test_two_thousand_pixels_keep_no_pairs_in_memory() -> None:
    p, y = large_batch()
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    p.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        rank_loss(p, y, 2000)
    assert kept
    assert max(kept) <= p.numel()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        rank_loss(p, y, 2000).backward()
    sizes = [event.self_cpu_memory_usage for event in profile.key_averages()]
    assert 0 < max(sizes) < 2000**2 * 4  # not even one image's pairs


def test_hybrid_is_the_weighted_sum() -> None:
    p, y = batch("random")
    loss = HybridLoss(lambda_rank=0.5, top_k=4, margin=0.1)
    torch.testing.assert_close(loss(p, y), dice_loss(p, y) + 0.5 * rank_loss(p, y, 4, 0.1))
    assert set(loss.parts(p, y)) == {"dice", "rank"}


@pytest.mark.parametrize("loss", [dice_loss, rank_loss, HybridLoss()])
def test_half_precision_input_is_computed_in_float32(loss: object) -> None:
    p, y = batch("random")
    half = p.bfloat16()
    value, gradient = value_and_gradient(lambda q: loss(q, y), half)  # type: ignore[operator]
    expected, expected_gradient = value_and_gradient(lambda q: loss(q, y), half.float())  # type: ignore[operator]
    assert value.dtype == torch.float32
    assert value == expected
    torch.testing.assert_close(gradient, expected_gradient.bfloat16())


@pytest.mark.parametrize("truth", [0.0, 1.0])
@pytest.mark.parametrize("probability", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_an_empty_and_a_full_mask_teach_every_pixel(truth: float, probability: float) -> None:
    p, y = torch.full((2, 1, 9, 8), probability), torch.full((2, 1, 9, 8), truth)
    value, gradient = value_and_gradient(lambda q: HybridLoss()(q, y), p)
    assert value.isfinite()
    towards_truth = -gradient if truth else gradient
    assert (towards_truth >= 0.25 / p.numel()).all()  # a quarter of what moves the mean probability one to one


def test_descent_on_an_empty_mask_lowers_a_wrong_prediction_to_nothing() -> None:
    y = torch.zeros(1, 1, 16, 16)
    logits = torch.full_like(y, 3.0).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.3)
    losses = []
    for _ in range(60):
        loss = HybridLoss()(logits.sigmoid(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 0.8
    assert losses[-1] < 0.01
    assert logits.sigmoid().max() < 0.01


@pytest.mark.parametrize("case", CASES)
def test_a_perfect_mask_costs_nothing(case: str) -> None:
    _, y = batch(case)
    assert dice_loss(y, y).item() == pytest.approx(0, abs=1e-5)
    assert rank_loss(y, y).item() == 0


def test_the_worst_mask_costs_the_most() -> None:
    _, y = batch("random")
    assert dice_loss(1 - y, y).item() == pytest.approx(1)
    assert rank_loss(1 - y, y, margin=0.3).item() == pytest.approx(1.3)


def test_the_graph_compiles_whole() -> None:
    p, y = batch("random")
    loss = torch.compile(HybridLoss(top_k=5), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(
        value_and_gradient(lambda q: loss(q, y), p), value_and_gradient(lambda q: HybridLoss(top_k=5)(q, y), p)
    )
