"""What a search has found: its points with the scores of all their seeds, the best one, and how much of it is noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mbdcnn.page import count
from tune._round import FAILED, FINISHED, Trial
from tune._space import LAMBDA, OPTIMUM, Point, Value, in_words


@dataclass(frozen=True)
class Tried:
    """A point and its trainings with constant settings, by seed."""

    point: dict[str, Value]
    trials: tuple[Trial, ...]

    @property
    def succeeded(self) -> bool:
        """Whether every training of it did."""
        return all(trial.state == FINISHED for trial in self.trials)

    @property
    def scores(self) -> list[float]:
        """JA of each training that came to its end."""
        return [trial.JA for trial in self.trials if trial.state == FINISHED and trial.JA is not None]

    @property
    def mean(self) -> float | None:
        """Over the seeds; None without a score."""
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def std(self) -> float | None:
        """Standard deviation over the seeds; None with fewer than two."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None


def tried(trials: Iterable[Trial]) -> list[Tried]:
    """The points of some trials, in the order in which they were first tried; an evolving trial's is none."""
    by_point: dict[tuple[tuple[str, Value], ...], dict[int, Trial]] = {}
    for trial in trials:
        if trial.run:
            by_point.setdefault(tuple(trial.point.items()), {}).setdefault(trial.seed, trial)
    return [Tried(dict(point), tuple(seeds.values())) for point, seeds in by_point.items()]


def best_of(points: Sequence[Tried]) -> Tried | None:
    """The point with the highest mean among the successes with the most seeds; None without a success."""
    successes = [p for p in points if p.succeeded and p.scores]
    return max(successes, key=lambda p: (len(p.scores), p.mean), default=None)


def finalists(trials: Sequence[Trial], most: int) -> list[dict[str, Value]]:
    """The points to try again with further seeds: the best of a first round, each once."""
    best = sorted((t for t in trials if t.state == FINISHED and t.JA is not None), key=lambda t: -(t.JA or 0.0))
    unique = {tuple(trial.point.items()): trial.point for trial in best}
    return list(unique.values())[:most]


def noise(points: Sequence[Tried]) -> float | None:
    """Standard deviation between seeds, pooled over the points that have several; None without one."""
    several = [p.scores for p in points if len(p.scores) > 1]
    if not several:
        return None
    squares = sum((len(scores) - 1) * statistics.variance(scores) for scores in several)
    return math.sqrt(squares / sum(len(scores) - 1 for scores in several))


def findings(points: Sequence[Tried], trials: Sequence[Trial], epochs: int) -> list[str]:
    """What a reader should know first, in sentences.

    Args:
        points: that were tried.
        trials: all of them.
        epochs: of a whole training.
    """
    best = best_of(points)
    if best is None:
        return ["No point has succeeded yet."]
    said = [f"Best: {in_words(best.point)}, JA {scored(best)}."]
    at_optimum = next((p for p in points if is_optimum(p.point) and p.scores), None)
    between = noise(points)
    if at_optimum is best:
        said.append("That is the paper's optimum.")
    elif at_optimum is not None:
        gain = 100 * ((best.mean or 0.0) - (at_optimum.mean or 0.0))
        said.append(f"The paper's optimum ({in_words(OPTIMUM)}) has JA {scored(at_optimum)} here, {-gain:+.1f} points.")
    if between is not None:
        least = 200 * between * math.sqrt(2 / len(best.scores))
        said.append(
            f"Between seeds JA deviates by {100 * between:.1f} points: means of {count(len(best.scores), 'seed')} that "
            f"differ by less than {least:.1f} points cannot be told apart."
        )
        near = [p for p in points if p.mean is not None and 100 * ((best.mean or 0.0) - p.mean) < least]
        said.append(f"{len(near)} of {count(len(points), 'point')} lie as close to the best, itself among them.")
    done, whole = sum(trial.epochs for trial in trials), epochs * len(trials)
    said.append(
        f"{count(len(trials), 'trial')} took {done} epochs, {100 * done / whole:.0f} % of what all would to their ends."
    )
    failed = [trial for trial in trials if trial.state == FAILED]
    if failed:
        said.append(f"{count(len(failed), 'trial')} failed, the first because: {failed[0].reason}")
    return said


def is_optimum(point: Point) -> bool:
    """Whether a point is the paper's choice; settings that the paper did not search do not count."""
    return all(point.get(field) == value for field, value in OPTIMUM.items())


def without_lambda(point: Point) -> dict[str, Value]:
    """The rest of a point."""
    return {field: value for field, value in point.items() if field != LAMBDA}


def scored(point: Tried) -> str:
    """A point's score as people read it: `76.2 ± 0.4 % over 2 seeds`."""
    spread = "" if point.std is None else f" ± {100 * point.std:.1f}"
    return f"{100 * (point.mean or 0.0):.1f}{spread} % over {count(len(point.scores), 'seed')}"
