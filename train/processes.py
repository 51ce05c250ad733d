"""One training over several processes: started here, or by torchrun."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing

from mbdcnn.errors import UserError, explain


@dataclass(frozen=True)
class Process:
    """This process's place among those that train together.

    Attributes:
        rank: 0 prints and writes.
        world: number of processes.
        device: on which it computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all."""
        if self.world > 1:
            dist.barrier()

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        """Average over the processes, of a tensor of any one shape."""
        if self.world > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
            tensor /= self.world
        return tensor

    def gather(self, rows: list[Any]) -> list[Any]:
        """All processes' rows, on every process; the order is by rank."""
        if self.world == 1:
            return rows
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, rows)
        return [row for part in parts for row in part]


def threads_each(processes: int) -> int:
    """CPU threads for each of several processes that share this machine's cores."""
    return max(1, len(os.sched_getaffinity(0)) // processes)


def count_processes(nproc: str) -> int:
    """Read a number of processes; `auto` is one per GPU, or one that uses every core.

    Raises:
        UserError: neither.
    """
    if nproc == "auto":
        return max(1, torch.cuda.device_count())
    if not nproc.isdigit() or int(nproc) < 1:
        raise UserError(f"--nproc is {nproc}; give auto or a number of processes, at least 1.")
    gpus = torch.cuda.device_count()
    if 0 < gpus < int(nproc):
        raise UserError(f"--nproc is {nproc}, more than the {gpus} GPUs of this machine; give at most {gpus}.")
    return int(nproc)


def world_size(nproc: str) -> int:
    """How many processes train together: the launcher's word under torchrun, else `count_processes`."""
    return int(os.environ["WORLD_SIZE"]) if _launched() else count_processes(nproc)


def run_processes(function: Callable[..., None], world: int, *args: Any) -> None:
    """Call `function(process, *args)` in every process.

    Under torchrun (or any launcher that sets RANK and WORLD_SIZE) this process joins the launcher's group. Otherwise
    `world` processes are started here; a single one is this very process.

    Raises:
        UserError: raised by a process.
    """
    if _launched():
        _join(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "env://", function, *args)
        return
    if world == 1:
        function(_process(0, 1), *args)
        return
    with tempfile.TemporaryDirectory(prefix="mbdcnn-") as folder:
        # children inherit that Ctrl-C is ignored until they have set themselves up: no tracebacks of half an import
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            context = multiprocessing.start_processes(
                _child, args=(world, folder, function, *args), nprocs=world, join=False, start_method="spawn"
            )
        finally:
            signal.signal(signal.SIGINT, previous)
        assert context is not None
        try:
            while not context.join():
                pass
        except (multiprocessing.ProcessExitedException, multiprocessing.ProcessRaisedException) as error:
            # when one process fails the others lose their connection to it: its own sentence is the one that counts
            reports = sorted(Path(folder).glob("error-*"))
            if reports:
                raise UserError(reports[0].read_text()) from None
            if getattr(error, "signal_name", None) == "SIGINT":
                raise KeyboardInterrupt from None
            raise
        finally:
            for child in context.processes:
                child.terminate()
            for child in context.processes:
                child.join(10)
                child.kill()


def _process(rank: int, world: int) -> Process:
    local = int(os.environ.get("LOCAL_RANK", rank))
    if torch.cuda.is_available():
        device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return Process(rank, world, device)
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    torch.set_num_threads(threads_each(local_world))
    return Process(rank, world, torch.device("cpu"))


def _join(rank: int, world: int, rendezvous: str, function: Callable[..., None], *args: Any) -> None:
    process = _process(rank, world)
    backend = "nccl" if process.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=rendezvous, rank=rank, world_size=world)
    function(process, *args)
    dist.destroy_process_group()  # not after an error: the others may be waiting in it


def _child(rank: int, world: int, folder: str, function: Callable[..., None], *args: Any) -> None:
    """Entry of a process that `run_processes` started; a user's error is left as a file for the parent to raise."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent, which got the same Ctrl-C, tells the user
    try:
        _join(rank, world, f"file://{folder}/rendezvous", function, *args)
    except (UserError, OSError) as error:
        Path(folder, f"error-{rank}").write_text(explain(error))
        sys.exit(2)


def _launched() -> bool:
    """Whether torchrun, or a launcher like it, started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ
