"""Steps of the optimizer: accumulation, clipping, decay, and what a checkpoint of them brings back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mbdcnn.errors import UserError
from train.ema import WeightsMean
from train.processes import Process, run_processes
from train.strategy import DdpStrategy

ALONE = Process(0, 1, torch.device("cpu"))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1))


def data(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 6, generator=generator), torch.randn(8, 1, generator=generator)


def train(strategy: DdpStrategy, steps: int, parts: int = 1, first: int = 0) -> Iterator[Tensor]:
    for step in range(first, first + steps):
        x, y = data(step)
        pieces = list(zip(x.tensor_split(parts), y.tensor_split(parts), strict=True))
        for number, (xs, ys) in enumerate(pieces, 1):
            loss = nn.functional.mse_loss(strategy.trained(xs), ys) * len(xs) / len(x)
            strategy.backward(loss, last=number == parts)
        yield strategy.step(0.05)


def weights(strategy: DdpStrategy) -> Tensor:
    return torch.cat([p.detach().flatten() for p in strategy.network.parameters()])


def test_micro_batches_add_up_to_the_batch() -> None:
    whole, cut = DdpStrategy(network(), ALONE), DdpStrategy(network(), ALONE, accumulation=4)
    norms = list(train(whole, 3)), list(train(cut, 3, parts=4))
    torch.testing.assert_close(torch.stack(norms[1]), torch.stack(norms[0]))
    torch.testing.assert_close(weights(cut), weights(whole), rtol=1e-4, atol=1e-5)


def test_without_decay_and_clipping_a_step_is_adams_to_the_bit() -> None:
    strategy, plain = DdpStrategy(network(), ALONE), network()
    list(train(strategy, 3))
    adam = torch.optim.Adam(plain.parameters(), lr=0.05, fused=True)
    for step in range(3):
        x, y = data(step)
        nn.functional.mse_loss(plain(x), y).backward()
        adam.step()
        adam.zero_grad()
    assert torch.equal(weights(strategy), torch.cat([p.detach().flatten() for p in plain.parameters()]))


def test_clipping_bounds_what_the_optimizer_sees_and_reports_what_came() -> None:
    strategy = DdpStrategy(network(), ALONE, clip_norm=0.01)
    x, y = data()
    seen: list[Tensor] = []
    strategy._optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.nn.utils.get_total_norm([p.grad for p in strategy.network.parameters()]))
    )
    strategy.backward(nn.functional.mse_loss(strategy.trained(x), y), last=True)
    before = torch.nn.utils.get_total_norm([p.grad for p in strategy.network.parameters() if p.grad is not None])
    assert strategy.step(0.05) == before > 0.01
    assert seen[0].item() == pytest.approx(0.01, rel=1e-3)
    assert all(p.grad is None for p in strategy.network.parameters())


def test_norms_and_biases_do_not_decay() -> None:
    strategy = DdpStrategy(network(), ALONE, weight_decay=0.5)
    before = {name: p.detach().clone() for name, p in strategy.network.named_parameters()}
    loss = sum((0.0 * p).sum() for p in strategy.network.parameters())
    assert isinstance(loss, Tensor)
    strategy.backward(loss, last=True)  # no gradient: what moves is decay
    strategy.step(0.1)
    for name, p in strategy.network.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] * (0.95 if p.ndim == 2 else 1.0))


def test_a_saved_state_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole, cut = DdpStrategy(network(), ALONE), DdpStrategy(network(), ALONE)
    list(train(whole, 5))
    list(train(cut, 2))
    cut.save(tmp_path)
    again = DdpStrategy(network(), ALONE)
    again.load(tmp_path)
    list(train(again, 3, first=2))
    assert torch.equal(weights(again), weights(whole))


@pytest.mark.parametrize("name", ["network.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("harm", ["cut", "gone", "swapped"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, harm: str) -> None:
    strategy = DdpStrategy(network(), ALONE)
    list(train(strategy, 1))
    strategy.save(tmp_path)
    file = tmp_path / name
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    elif harm == "gone":
        file.unlink()
    else:
        other = next(f for f in tmp_path.iterdir() if f.name != name)
        file.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match=rf"{name} is damaged; delete the folder {tmp_path}"):
        strategy.load(tmp_path)


def test_the_mean_follows_the_weights_and_the_statistics_of_batch_norm() -> None:
    followed = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    mean = WeightsMean(followed, 0.2)
    expected: dict[str, Tensor] = {}
    for step, keep in enumerate((0, 2 / 11, 0.2)):  # the second step keeps little of the first
        with torch.no_grad():
            for tensor in followed.state_dict().values():
                tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(step)) * 10)
        mean.update_parameters(followed)
        for name, tensor in followed.state_dict().items():
            expected[name] = tensor.clone() if step == 0 else keep * expected[name] + (1 - keep) * tensor
    for name, tensor in mean.module.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name])
    assert not any(p.requires_grad for p in mean.parameters())


def _halves(process: Process, folder: str) -> None:
    """Two processes with half of each batch, in two micro-batches each, and a resume on their way."""
    strategy = DdpStrategy(network(), process, accumulation=2, clip_norm=0.5)

    def steps(strategy: DdpStrategy, count: int, first: int) -> None:
        for step in range(first, first + count):
            x, y = (t.tensor_split(2)[process.rank] for t in data(step))
            for number, (xs, ys) in enumerate(zip(x.tensor_split(2), y.tensor_split(2), strict=True), 1):
                strategy.backward(nn.functional.mse_loss(strategy.trained(xs), ys) / 2, last=number == 2)
            strategy.step(0.05)

    steps(strategy, 2, 0)
    strategy.save(Path(folder))
    process.barrier()
    again = DdpStrategy(network(), process, accumulation=2, clip_norm=0.5)
    again.load(Path(folder))
    steps(strategy, 2, 2)
    steps(again, 2, 2)
    assert torch.equal(weights(strategy), weights(again))
    if process.is_first:
        torch.save(weights(again), Path(folder) / "after.pt")


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_with_micro_batches_do_what_one_does_with_the_batch(tmp_path: Path) -> None:
    run_processes(_halves, 2, str(tmp_path))
    alone = DdpStrategy(network(), ALONE, clip_norm=0.5)
    list(train(alone, 4))
    torch.testing.assert_close(torch.load(tmp_path / "after.pt", weights_only=True), weights(alone))
    on_one = DdpStrategy(network(), ALONE, clip_norm=0.5)
    on_one.load(tmp_path)  # what two have saved
    list(train(on_one, 2, first=2))
    torch.testing.assert_close(weights(on_one), weights(alone))
