"""The Ray cluster of a search: one that runs already, or one on this machine for as long as the search takes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mbdcnn.errors import UserError
from mbdcnn.page import count
from tune._work import Share

_ROOT = Path(__file__).resolve().parents[1]
_OBJECT_STORE_BYTES = 200_000_000  # trials hand each other numbers and paths
_PATIENCE_S = 5.0


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Connect to the cluster at an address, or start one on this machine where there is none.

    Args:
        address: `HOST:PORT`, `auto` for one that runs on this machine, or `local` for one of the search's own; None for
            the one that a Ray job runs in, else `local`.

    Raises:
        UserError: there is no cluster at the address.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    # before Ray is imported: what it reads of these it reads once
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # run folders hold all of it, and more
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5")
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # signals are the search's own business
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == "local":
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # of other users of this machine none can give it work
    import ray

    shared: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if address == "local":
        os.environ.pop("RAY_ADDRESS", None)
        ray.init(
            address="local",
            num_cpus=len(os.sched_getaffinity(0)),
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            runtime_env={"env_vars": {"PYTHONPATH": _python_path()}},
            **shared,
        )
    else:
        _require_cluster(address)
        try:
            ray.init(address=address, **shared)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _none_at(address, next(iter(str(error).splitlines()), "").rstrip(".")) from None
    try:
        yield
    finally:
        ray.shutdown()


def trials_at_once(share: Share) -> int:
    """How many trials the cluster has room for at once.

    Raises:
        UserError: not even one.
    """
    import ray

    return room(share, [node["Resources"] for node in ray.nodes() if node["Alive"]])


def room(share: Share, machines: Sequence[Mapping[str, float]]) -> int:
    """How many trials fit on some machines at once, each process on one machine.

    Args:
        share: of a trial.
        machines: what each has, `{"CPU", "GPU"}`.

    Raises:
        UserError: not even one; what is missing.
    """
    wanted = {name: amount for name, amount in (("CPU", share.cpus), ("GPU", share.gpus)) if amount}
    processes = sum(
        min(int(machine.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items()) for machine in machines
    )
    if processes >= share.processes:
        return processes // share.processes
    has = ", ".join(f"{m.get('CPU', 0.0):g} CPUs and {m.get('GPU', 0.0):g} GPUs" for m in machines)
    one = " and ".join(f"{amount:g} {name}s" for name, amount in wanted.items())
    trial = f"{share.processes} processes with {one} each" if share.processes > 1 else f"{one} on one machine"
    raise UserError(
        f"A trial wants {trial}, and the cluster's {count(len(machines), 'machine')} "
        f"{'has' if len(machines) == 1 else 'have'} {has}: lower --cpus, --gpus or --processes, or add a machine."
    )


def _require_cluster(address: str) -> None:
    """Refuse at once what Ray would look for over minutes."""
    if address == "auto":
        return
    if "://" in address:
        raise UserError(f"--address {address} is of a kind that cannot search; send the search with `ray job submit`.")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--address is {address}; give HOST:PORT, auto or local.")
    try:
        socket.create_connection((host, int(port)), _PATIENCE_S).close()
    except OSError as error:
        raise _none_at(address, error.strerror or str(error)) from None


def _none_at(address: str, why: str) -> UserError:
    return UserError(
        f"There is no Ray cluster at {address} ({why}); start one with `ray start --head`, or leave out --address for "
        "one of the search's own."
    )


def _python_path() -> str:
    """Where workers find these rooms without an install."""
    return os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
