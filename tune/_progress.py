"""What is shown of a round while it runs: a table on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from ray.tune import Callback

from tune import _interruption
from tune._space import in_words
from tune._trial import EPOCH, SCORE

_PERIOD_S, _LEAST_S = 30.0, 10.0
_BEST = 5


class Progress(Callback):
    """Shows the table every half minute, soon after trials have ended, and at the end; ends the round when asked to.

    Ray keeps the callback with the round's state and calls the kept one when a search goes on, so that it holds nothing
    of its process.
    """

    def __init__(self, title: str) -> None:
        """Watch a round.

        Args:
            title: of the round.
        """
        self._title = title
        self._began = self._shown = 0.0
        self._total = 0
        self._ended = 0

    def setup(self, total_num_samples: int | None = None, **info: Any) -> None:
        """Begin, or go on."""
        self._began = self._shown = time.monotonic()
        self._total, self._ended = total_num_samples or 0, 0

    def on_step_end(self, iteration: int, trials: Sequence[Any], **info: Any) -> None:
        """Show the table if it is due."""
        if _interruption.asked():  # perhaps before Ray could hear it
            _interruption.tell_ray()
        ended = sum(trial.is_finished() for trial in trials)
        now = time.monotonic()
        since = now - self._shown
        all_ended = ended == len(trials) >= self._total
        if since >= _PERIOD_S or (ended > self._ended and (since >= _LEAST_S or all_ended)):
            self._ended, self._shown = ended, now
            print(table(self._title, trials, self._total, now - self._began), file=sys.stderr, flush=True)


def table(title: str, trials: Sequence[Any], total: int, seconds: float) -> str:
    """A round as text: how many trials are where, those that run, and the best of the others.

    Args:
        title: of the round.
        trials: Ray's.
        total: how many there will be, where that is known.
        seconds: that the round has taken.
    """
    by_status: dict[str, list[Any]] = {}
    for trial in trials:
        by_status.setdefault(trial.status, []).append(trial)
    running, failed = by_status.get("RUNNING", []), by_status.get("ERROR", [])
    ended = by_status.get("TERMINATED", [])
    minutes, rest = divmod(round(seconds), 60)
    head = (
        f"{title}: {len(ended)} of {max(total, len(trials))} trials ended, {len(running)} running, "
        f"{len(failed)} failed, {minutes}:{rest:02} min"
    )
    best = sorted((t for t in ended if t.last_result.get(SCORE)), key=lambda t: -t.last_result[SCORE])[:_BEST]
    rows = [("running", trial) for trial in running] + [("ended", trial) for trial in best]
    return "\n".join([head, *(_row(state, trial) for state, trial in rows)])


def _row(state: str, trial: Any) -> str:
    seen, config = trial.last_result or {}, trial.config
    score = f"JA {seen[SCORE]:.4f}" if seen.get(SCORE) is not None else "JA -"
    return f"  {state:<8}epoch {seen.get(EPOCH, 0):>3}  {score:<10}  {in_words(config['point'])}, seed {config['seed']}"
