"""Work shared out to threads, in order, with a bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
R = TypeVar("R")


def in_threads(work: Callable[[T], R], places: Sequence[T], title: str, progress: bool) -> Iterator[R]:
    """Yield `work(place)` for each place, in order.

    Threads suffice for pictures: NumPy, Pillow and hashing let go of the interpreter for most of their work.

    Args:
        work: called once for each place, from several threads.
        places: what to work on.
        title: of the bar.
        progress: show a bar on standard error.
    """
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        try:
            results = pool.map(work, places)
            yield from tqdm(results, total=len(places), desc=title, unit="image", disable=not progress)
        finally:  # an interruption should not wait for what has not begun
            pool.shutdown(wait=False, cancel_futures=True)
