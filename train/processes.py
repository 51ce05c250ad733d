"""One training over several processes: started here, or by a launcher such as torchrun."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mbdcnn.errors import Stopped, UserError, explain
from train import stopping
from train._allocator import keep_memory
from train._children import run_children

_BESIDE = ("LOCAL_WORLD_SIZE", "LOCAL_SIZE")  # processes on this machine, in torchrun's word and in deepspeed's


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

    @property
    def threads(self) -> int:
        """CPU threads for this process, which shares its machine's cores with those beside it."""
        beside = next((os.environ[name] for name in _BESIDE if name in os.environ), self.world)
        return max(1, len(os.sched_getaffinity(0)) // int(beside))

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

    def any(self, *flags: bool) -> list[bool]:
        """Of each flag whether it is set on any process."""
        if self.world == 1:
            return list(flags)
        seen = torch.tensor(flags, dtype=torch.int32, device=self.device)
        dist.all_reduce(seen, dist.ReduceOp.MAX)
        return [bool(flag) for flag in seen.tolist()]

    def gather(self, rows: list[Any]) -> list[Any]:
        """All processes' rows, on every process; the order is by rank."""
        if self.world == 1:
            return rows
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, rows)
        return [row for part in parts for row in part]


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
    """How many processes train together: a launcher's word, else `count_processes`."""
    return int(os.environ["WORLD_SIZE"]) if _launched() else count_processes(nproc)


def run_processes(function: Callable[..., None], world: int, *args: Any) -> None:
    """Call `function(process, *args)` in every process.

    Under torchrun or deepspeed (any launcher that sets RANK and WORLD_SIZE) this process joins its group. Otherwise
    `world` processes are started here; a single one is this very process.

    Raises:
        UserError: raised by a process, or a process has gone.
        Stopped: SIGTERM or Ctrl-C ended the work, and all processes have kept what they had done.
    """
    if world > 1 and not _launched():
        run_children(_child, world, function, *args)
        return
    with stopping.at_once():
        if _launched():
            _run_launched(function, *args)
        else:
            function(_process(0, 1), *args)


def run_in_group(function: Callable[..., None], *args: Any) -> None:
    """Call `function(process, *args)` as one of processes whose group has been made, as Ray Train does.

    Raises:
        UserError: raised by this process.
    """
    function(_process(dist.get_rank(), dist.get_world_size()), *args)


def connection_was_lost(error: Exception) -> bool:
    """Whether an error of a collective says that another process has gone; gloo says it by its source file alone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))


def _process(rank: int, world: int) -> Process:
    local = int(os.environ.get("LOCAL_RANK", rank))
    if torch.cuda.is_available():
        device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return Process(rank, world, device)
    process = Process(rank, world, torch.device("cpu"))
    torch.set_num_threads(process.threads)
    keep_memory()
    return process


def _join(rank: int, world: int, store: dist.Store, function: Callable[..., None], *args: Any) -> None:
    process = _process(rank, world)
    backend = "nccl" if process.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world)
    function(process, *args)
    dist.destroy_process_group()  # not after an error: the others may be waiting in it


def _run_launched(function: Callable[..., None], *args: Any) -> None:
    """Work as one of a launcher's processes."""
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UserError(
            f"RANK and WORLD_SIZE are set, and {' and '.join(missing)} not; start the processes with torchrun or "
            "deepspeed, which set all of them, or unset them to train on this machine alone."
        )
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = _launchers_store(rank, world)
    try:
        _join(rank, world, store, function, *args)
    except Exception as error:
        if not connection_was_lost(error):
            raise
        raise UserError(
            "lost the connection to another process, which was killed or says itself what went wrong; the same command "
            "goes on after the last whole checkpoint."
        ) from None


def _launchers_store(rank: int, world: int) -> dist.Store:
    """Where the processes of a launcher find each other.

    torchrun keeps one store for all its restarts, in which the addresses of killed processes remain: each attempt
    needs names of its own.
    """
    store, _, _ = next(dist.rendezvous("env://", rank, world))
    return dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def _child(rank: int, world: int, folder: str, function: Callable[..., None], *args: Any) -> None:
    """Entry of a process that `run_processes` started; how it ended is left as a file for the parent to tell."""
    os.environ["LOCAL_RANK"] = str(rank)  # as a launcher says it, for DeepSpeed
    try:
        _join(rank, world, dist.FileStore(f"{folder}/rendezvous", world), function, *args)
    except (UserError, OSError) as error:
        Path(folder, f"error-{rank}").write_text(explain(error))
        sys.exit(2)
    except Stopped as stopped:
        Path(folder, f"stopped-{rank}").write_text(str(stopped))
        sys.exit(128 + stopped.signal)


def _launched() -> bool:
    """Whether torchrun, or a launcher like it, started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ
