"""ZeRO 0 to 3 on two real processes, with accumulation, clipping, decay and checkpointed activations.

One process with plain PyTorch and the whole batch is the measure. The networks are mask-CN's own, 5 million parameters.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.multiprocessing import spawn

from mbdcnn.errors import UserError
from mbdcnn.networks import MaskCN
from mbdcnn.presets import preset
from train.activation_checkpointing import checkpoint_activations
from train.deepspeed_strategy import DeepSpeedStrategy
from train.processes import Process, run_processes

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

STAGES = (0, 1, 2, 3)
STEPS, SAVED_AFTER = 4, 2
ACCUMULATION, BATCH, CLIP, DECAY = 2, 8, 1.0, 0.1
TAIL = slice(SAVED_AFTER, STEPS)


def _network() -> MaskCN:
    torch.manual_seed(0)
    network = MaskCN(replace(preset("smoke").network, mask_channel=False))
    for parameter in network.classifier.parameters():
        parameter.requires_grad_(False)  # as some encoders' heads are
    return network


def _batch(step: int) -> list[tuple[Tensor, Tensor]]:
    """The micro-batches of a step."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(BATCH, 3, 64, 64, generator=generator)
    labels = torch.randint(0, 3, (BATCH,), generator=generator)
    return list(zip(images.chunk(ACCUMULATION), labels.chunk(ACCUMULATION), strict=True))


def _rate(step: int) -> float:
    return 1e-3 / (1 + step)


def _loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(network(images, None)[0], labels) / ACCUMULATION


def _plain_curve(bfloat16: bool = False) -> list[tuple[float, float]]:
    """Each step's loss and gradient norm."""
    network = _network()
    optimizer = torch.optim.AdamW(param_groups_weight_decay(network, DECAY))
    curve = []
    for step in range(STEPS):
        total = 0.0
        for images, labels in _batch(step):
            with torch.autocast("cpu", torch.bfloat16, bfloat16):
                loss = _loss(network, images, labels)
            loss.backward()
            total += loss.item()
        norm = nn.utils.clip_grad_norm_([p for p in network.parameters() if p.grad is not None], CLIP)
        for group in optimizer.param_groups:
            group["lr"] = _rate(step)
        optimizer.step()
        optimizer.zero_grad()
        curve.append((total, norm.item()))
    return curve


def _strategy(process: Process, stage: int, bfloat16: bool = False) -> DeepSpeedStrategy:
    network = _network()
    checkpoint_activations(network)
    return DeepSpeedStrategy(
        network,
        process,
        zero_stage=stage,
        accumulation=ACCUMULATION,
        clip_norm=CLIP,
        weight_decay=DECAY,
        bfloat16=bfloat16,
        micro_batch=BATCH // ACCUMULATION // process.world,
    )


def _curve(strategy: DeepSpeedStrategy, process: Process, steps: range) -> list[tuple[float, float]]:
    curve = []
    for step in steps:
        total = torch.zeros(())
        for i, batch in enumerate(_batch(step)):
            images, labels = (part.chunk(process.world)[process.rank] for part in batch)
            loss = _loss(strategy.trained, images, labels)
            strategy.backward(loss, last=i == ACCUMULATION - 1)
            total += loss.detach()
        norm = strategy.step(_rate(step))
        assert norm.shape == ()
        curve.append((process.mean(total).item(), norm.item()))
    return curve


def _weights(strategy: DeepSpeedStrategy) -> dict[str, Tensor]:
    with strategy.gathered() as network:
        return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _answer(strategy: DeepSpeedStrategy, times: int) -> float:
    """What the whole network says of an image, asked a number of times that may differ between processes."""
    with strategy.gathered() as network, torch.no_grad():
        network.eval()
        answers = [network(_batch(9)[0][0], None)[0].sum().item() for _ in range(times)]
    strategy.network.train()
    return answers[0]


def _train_save_and_resume(process: Process, out: str) -> None:
    found: dict[str, Any] = {}
    for stage in STAGES:
        folder = Path(out, f"two-{stage}")
        strategy = _strategy(process, stage)
        curve = _curve(strategy, process, range(SAVED_AFTER))
        strategy.save(folder)
        curve += _curve(strategy, process, range(SAVED_AFTER, STEPS))
        again = _strategy(process, stage)
        again.load(folder)
        tail = _curve(again, process, range(SAVED_AFTER, STEPS))
        ours, theirs = _weights(again), _weights(strategy)
        assert ours.keys() == theirs.keys() == _network().state_dict().keys()
        found[str(stage)] = {
            "curve": curve,
            "resumed": tail,
            "differing weights": [name for name in ours if not torch.equal(ours[name], theirs[name])],
            "answers": process.gather([_answer(strategy, 1 + process.rank)]),
        }
    found["bfloat16"] = _curve(_strategy(process, 3, bfloat16=True), process, range(STEPS))
    if process.is_first:
        Path(out, "two.json").write_text(json.dumps(found))


def _resume(process: Process, out: str, source: str, stages: tuple[int, ...]) -> None:
    """Go on from checkpoints of another number of processes."""
    found = {}
    for stage in stages:
        strategy = _strategy(process, stage)
        strategy.load(Path(out, f"{source}-{stage}"))
        if source == "two":
            strategy.save(Path(out, f"one-{stage}"))
        found[str(stage)] = _curve(strategy, process, range(SAVED_AFTER, STEPS))
    if process.is_first:
        Path(out, f"from-{source}.json").write_text(json.dumps(found))


def _resume_alone(_: int, out: str) -> None:
    run_processes(_resume, 1, out, "two", STAGES)
    refusals = []
    damaged = Path(out, "two-1")
    (damaged / "zero" / "zero_pp_rank_1_mp_rank_00_optim_states.pt").write_bytes(b"half")
    for stage, folder in ((1, Path(out, "two-2")), (1, damaged), (1, Path(out, "none"))):
        try:
            _strategy(Process(0, 1, torch.device("cpu")), stage).load(folder)
        except UserError as error:
            refusals.append(str(error))
    Path(out, "refusals.json").write_text(json.dumps(refusals))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deepspeed")


@pytest.fixture(scope="module")
def two(folder: Path) -> dict[str, Any]:
    """What two processes found; they have no compiler."""
    tools = folder / "bin"
    tools.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tools))
        patch.setenv("TORCH_EXTENSIONS_DIR", str(folder / "extensions"))
        run_processes(_train_save_and_resume, 2, str(folder))
    assert not (folder / "extensions").exists()
    found: dict[str, Any] = json.loads((folder / "two.json").read_text())
    return found


@pytest.fixture(scope="module")
def one(two: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What one process found that took up the two's checkpoints."""
    spawn(_resume_alone, (str(folder),))
    found: dict[str, Any] = json.loads((folder / "from-two.json").read_text())
    return found


def _close(ours: Any, theirs: Any, tolerance: float) -> None:
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=tolerance, atol=0)


def test_every_stage_follows_the_curve_of_one_process_with_the_whole_batch(two: dict[str, Any]) -> None:
    expected = _plain_curve()
    for stage in STAGES:
        _close(two[str(stage)]["curve"], expected, 2e-3)
        _close(two[str(stage)]["curve"][0], expected[0], 1e-5)  # before rounding errors have gone through Adam


def test_bfloat16_follows_too(two: dict[str, Any]) -> None:
    assert two["bfloat16"] != two["3"]["curve"]
    _close(two["bfloat16"], _plain_curve(bfloat16=True), 0.1)


def test_a_resume_with_as_many_processes_is_exact(two: dict[str, Any]) -> None:
    for stage in STAGES:
        assert two[str(stage)]["resumed"] == two[str(stage)]["curve"][TAIL]
        assert two[str(stage)]["differing weights"] == []


def test_processes_may_ask_the_gathered_network_differently_often(two: dict[str, Any]) -> None:
    for stage in STAGES:
        first, second = two[str(stage)]["answers"]
        assert first == second
        assert first == pytest.approx(two["0"]["answers"][0], rel=1e-2)


def test_fewer_processes_go_on(two: dict[str, Any], one: dict[str, Any]) -> None:
    for stage in STAGES:
        _close(one[str(stage)], two[str(stage)]["curve"][TAIL], 2e-3)


def test_more_processes_go_on(two: dict[str, Any], one: dict[str, Any], folder: Path) -> None:
    run_processes(_resume, 2, str(folder), "one", (1, 3))
    for stage, curve in json.loads((folder / "from-one.json").read_text()).items():
        _close(curve, two[stage]["curve"][TAIL], 2e-3)
    assert not list(folder.glob("*.universal"))


def test_what_cannot_be_loaded_is_said_in_a_sentence(one: dict[str, Any], folder: Path) -> None:
    stage, damaged, missing = json.loads((folder / "refusals.json").read_text())
    assert "was written with engine.zero_stage=2, and cannot go on with 1; set engine.zero_stage=2." in stage
    assert f"{folder / 'two-1'} is damaged; delete it" in damaged
    assert f"{folder / 'none'} is damaged; delete it" in missing


def _make(process: Process) -> None:
    _curve(_strategy(process, 1), process, range(1))


def test_standard_output_stays_clean(capfd: pytest.CaptureFixture[str]) -> None:
    run_processes(_make, 2)
    written = capfd.readouterr()
    assert written.out == ""
    assert "deepspeed" not in written.err.lower()
    assert "RANK" not in os.environ
