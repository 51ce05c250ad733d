"""The trainers' step against plain eager float32 in NCHW, of all networks of the presets, with loading and without."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path

import torch
from _measure import alternate, report
from _training import PLANES, Step, make_step, make_task, settings

from mbdcnn.config import STAGES, Config
from mbdcnn.data.index import index_folder
from mbdcnn.data.prepared import find_copies, prepare
from mbdcnn.data.sample import write_sample
from train.pipeline import LoadedBatch, Sample
from train.processes import Process
from train.tasks import CoarseTask, EnhancedTask, MaskTask

CUDA = torch.cuda.is_available()
PROCESS = Process(0, 1, torch.device("cuda", 0) if CUDA else torch.device("cpu"))
FASTER = {"paper": ">= 2.5", "compact": ">= 2.5"} if CUDA else {"paper": ">= 1.7", "compact": ">= 1.3"}
STEPS = {"paper": 20, "compact": 20} if CUDA else {"paper": 1, "compact": 3}  # that are timed together
IMAGES, EPOCH = 48, 48 * 200  # an epoch so long that none ends within the measurement
GOALS = {
    f"plain_over_ours_{preset}_{stage}{loading}": goal
    for preset, goal in FASTER.items()
    for stage in STAGES
    for loading in ("", "_with_loading")
}
if CUDA:
    GOALS |= {f"waiting_for_data_{preset}_{stage}": "<= 0.05" for preset in FASTER for stage in STAGES}


def plain_step(task: CoarseTask | MaskTask, learning_rate: float) -> Step:
    """Float32, the layout that PyTorch makes, Adam as it comes."""
    network = task.network.to(PROCESS.device).train()
    if isinstance(task, EnhancedTask):
        assert task.mask_cn is not None
        task.mask_cn.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)

    def step(batch: LoadedBatch) -> None:
        optimizer.zero_grad()
        task.losses(network, batch)["loss"].backward()
        optimizer.step()

    return step


def endless(task: CoarseTask | MaskTask) -> Iterator[LoadedBatch]:
    """Training batches, each loaded while those before it are trained on."""
    for epoch in count():
        yield from task.batches(epoch, 0)


def run(step: Step, batches: Iterator[LoadedBatch], steps: int) -> None:
    """Take batches, train."""
    for batch in islice(batches, steps):
        step(batch)


def same(batch: LoadedBatch) -> Iterator[LoadedBatch]:
    """A batch that is there already, for ever."""
    while True:
        yield batch


def waiting_share(step: Step, batches: Iterator[LoadedBatch], steps: int) -> float:
    """Share of the time that the GPU, done with a step, has to wait for the next batch."""
    run(step, batches, steps)
    marks = []
    for batch in islice(batches, steps):
        loaded, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        loaded.record()
        step(batch)
        done.record()
        marks.append((loaded, done))
    torch.cuda.synchronize()
    waited = sum(marks[i][1].elapsed_time(marks[i + 1][0]) for i in range(steps - 1))
    return float(waited / marks[0][1].elapsed_time(marks[-1][1]))


def samples(folder: Path, stage: str) -> list[Sample]:
    """Prepared copies of drawn images, again and again; the true mask stands for the coarse one."""
    manifest = index_folder(folder)
    copies = find_copies(manifest, folder / "prepared")
    classes = manifest.classes
    chosen = [
        Sample(
            copies.images[item.sha256],
            (copies.masks[item.mask_sha256 or ""],) * len(PLANES[stage]),
            classes.index(item.label or classes[0]),
        )
        for item in manifest.items
    ]
    return chosen * (EPOCH // IMAGES)


def compare(config: Config, stage: str, steps: int, rounds: int, folder: Path) -> dict[str, float]:
    """Ratios of one network."""
    name, size = f"{config.preset}_{stage}", config.stage(stage).batch_size
    task, plain_task = (make_task(config, stage, PROCESS, samples(folder, stage)) for _ in range(2))
    ours = make_step(task, config, stage, PROCESS)
    plain = plain_step(plain_task, config.stage(stage).learning_rate)
    batches, plain_batches = endless(task), endless(plain_task)
    held = next(batches)
    seconds = alternate(
        rounds,
        **{
            f"ours_{name}": partial(run, ours, same(held), steps),
            f"plain_{name}": partial(run, plain, same(held), steps),
            f"ours_{name}_with_loading": partial(run, ours, batches, steps),
            f"plain_{name}_with_loading": partial(run, plain, plain_batches, steps),
        },
    )
    speeds = {side: steps * size / value for side, value in seconds.items()}
    print(*(f"{side:<36}{speed:>10.2f} images/s" for side, speed in speeds.items()), sep="\n", file=sys.stderr)
    ratios = {f"images_per_s_{name}": speeds[f"ours_{name}_with_loading"]}
    for kind in (name, f"{name}_with_loading"):
        ratios[f"plain_over_ours_{kind}"] = seconds[f"plain_{kind}"] / seconds[f"ours_{kind}"]
    if CUDA:
        ratios[f"waiting_for_data_{name}"] = waiting_share(ours, batches, steps)
    return ratios


def measure(quick: bool) -> dict[str, float]:
    """Every network in turn; with `quick` batches of 4 on a CPU, which say little of the real ones."""
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        write_sample(folder, {"training": IMAGES}, size=320)
        prepare(index_folder(folder), folder / "prepared")
        for preset, steps in STEPS.items():
            for stage in STAGES:
                few = [f"{stage}.batch_size=4"] if quick and not CUDA else []
                config = settings(preset, *few)
                ratios |= compare(config, stage, 1 if few else steps, 1 if quick else 5, folder)
    return ratios


if __name__ == "__main__":
    report("train_step", measure, GOALS)
