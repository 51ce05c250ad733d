"""What every benchmark shares: sides timed in turn, memory counted, one JSON document."""

from __future__ import annotations

import argparse
import json
import operator
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from mbdcnn.machine import machine
from mbdcnn.runs import code_version

_MEETS = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


def alternate(rounds: int, **sides: Callable[[], object]) -> dict[str, float]:
    """Time the sides in turn, so that whatever slows the machine for a while slows them alike.

    Args:
        rounds: how often each side is timed, after one call that warms it up.
        sides: what to time, by name.

    Returns:
        The median of each, in seconds; also told on standard error.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for timed in range(rounds + 1):
        for name, side in sides.items():
            _wait()
            start = time.perf_counter()
            side()
            _wait()
            if timed:
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<24}{1e3 * median:>12.2f} ms  (median of {rounds})", file=sys.stderr)
    return medians


def peak_memory(action: Callable[[], object]) -> int:
    """The most bytes that tensors made by `action` held at one moment, whatever the allocator kept besides."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA][: 1 + torch.cuda.is_available()]
        with profile(activities=activities, profile_memory=True) as profiler:
            action()
        profiler.export_chrome_trace(str(trace))
        events = [e for e in json.loads(trace.read_text())["traceEvents"] if e["name"] == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def report(
    name: str,
    measure: Callable[[bool], dict[str, float]],
    goals: Mapping[str, str],
    options: argparse.ArgumentParser | None = None,
) -> None:
    """Read `--quick` and `--json` from the command line, measure, print.

    Args:
        name: of the benchmark.
        measure: takes whether to be quick, returns the ratios by name.
        goals: what some of the ratios should be, such as `>= 10`; one whose ratio was not measured is left out.
        options: the benchmark's own, which it reads itself.
    """
    parents = [options] if options else []
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__, parents=parents)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: under two minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    arguments = parser.parse_args()
    ratios = {ratio: float(f"{value:.3g}") for ratio, value in measure(arguments.quick).items()}
    goals = {ratio: goal for ratio, goal in goals.items() if ratio in ratios}
    met = {ratio: _meets(ratios[ratio], goal) for ratio, goal in goals.items()}
    version = code_version()
    document = {
        "name": name,
        "machine": machine(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": version.partition("+g")[2] or version,
        "ratios": ratios,
        "goals": goals,
        "met": all(met.values()),
    }
    if arguments.json:
        print(json.dumps(document, indent=2))
        return
    for ratio, value in ratios.items():
        verdict = f"  goal {goals[ratio]}: {'met' if met[ratio] else 'MISSED'}" if ratio in goals else ""
        print(f"{ratio:<36}{value:>10g}{verdict}")
    print(f"{document['machine']}, {document['date']}, {document['commit']}")


def _meets(value: float, goal: str) -> bool:
    sign, bound = goal.split()
    return bool(_MEETS[sign](value, float(bound)))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
