"""What is searched: the settings that vary, over which values, and what a point of it means for a run."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mbdcnn.config import Config, override
from mbdcnn.errors import UserError, unknown
from train.reproduce.catalog import LAMBDA_RANK, MARGIN, TOP_K

Value = int | float | str
Point = Mapping[str, Value]

K, MARGIN_FIELD, LAMBDA = "loss.top_k", "loss.margin", "loss.lambda_rank"
RATE, ENCODER = "coarse.learning_rate", "network.segmentation_encoder"
AUGMENTATION = "augmentation"  # how strong all of it is, as a multiple of the settings that the search starts from
OPTIMUM: Point = {K: 30, MARGIN_FIELD: 0.3, LAMBDA: 0.05}  # the paper's

_DIGITS = 4  # of a drawn value; more would only make files hard to read


@dataclass(frozen=True)
class Listed:
    """A setting that takes one of some values."""

    field: str
    values: tuple[Value, ...]

    def draw(self, chance: random.Random) -> Value:
        """One of them, all equally likely."""
        return chance.choice(self.values)

    def tidy(self, value: Value) -> Value:
        """The value itself."""
        return value


@dataclass(frozen=True)
class Range:
    """A setting that takes any value between two.

    Attributes:
        field: dotted name.
        low: smallest.
        high: largest.
        whole: integers only.
        log: drawn evenly in the logarithm.
    """

    field: str
    low: float
    high: float
    whole: bool = False
    log: bool = False

    def draw(self, chance: random.Random) -> Value:
        """A value, tidied."""
        if self.log:
            return self.tidy(math.exp(chance.uniform(math.log(self.low), math.log(self.high))))
        return self.tidy(chance.uniform(self.low, self.high))

    def tidy(self, value: Value) -> Value:
        """A number that a sampler proposes, within the range and with few digits."""
        bounded = min(max(float(value), self.low), self.high)
        return round(bounded) if self.whole else float(f"{bounded:.{_DIGITS}g}")


Axis = Listed | Range


@dataclass(frozen=True)
class Space:
    """What a search looks through.

    Attributes:
        name: `paper` or `wide`.
        axes: vary together, in the first round.
        after: varies alone, in a last round at the best point of the first.
    """

    name: str
    axes: tuple[Axis, ...]
    after: Listed | None = None

    def tidy(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """A point that a sampler proposes, as it is trained."""
        return {axis.field: axis.tidy(values[axis.field]) for axis in self.axes}

    def grid(self) -> list[dict[str, Value]] | None:
        """Every point, None where a setting is not one of some values."""
        listed = [axis for axis in self.axes if isinstance(axis, Listed)]
        if len(listed) < len(self.axes):
            return None
        fields = [axis.field for axis in listed]
        return [dict(zip(fields, values, strict=True)) for values in itertools.product(*(a.values for a in listed))]

    def draw(self, count: int, seed: int) -> list[dict[str, Value]]:
        """Different points; all of them where there are no more."""
        chance = random.Random(seed)
        grid = self.grid()
        if grid is not None:
            return chance.sample(grid, min(count, len(grid)))
        return [{axis.field: axis.draw(chance) for axis in self.axes} for _ in range(count)]


_PAPER = Space(
    "paper",
    (Listed(K, TOP_K), Listed(MARGIN_FIELD, MARGIN), Listed(LAMBDA, (OPTIMUM[LAMBDA],))),
    Listed(LAMBDA, LAMBDA_RANK),
)
_WIDE = Space(
    "wide",
    (
        Range(K, 5, 2000, whole=True, log=True),
        Range(MARGIN_FIELD, 0.05, 0.6),
        Range(LAMBDA, 0.005, 1.0, log=True),
    ),
)
SPACES = {space.name: space for space in (_PAPER, _WIDE)}
ALSO = ("learning_rate", "augmentation")


def space_of(name: str, also: Collection[str], encoders: Collection[str], config: Config) -> Space:
    """A space with the axes that the user asks for.

    Args:
        name: one of `SPACES`.
        also: of `ALSO`.
        encoders: to compare with the one of the settings.
        config: the settings that the search starts from.

    Raises:
        UserError: an unknown name.
    """
    if name not in SPACES:
        raise unknown("space", name, SPACES)
    for word in also:
        if word not in ALSO:
            raise unknown("setting for --also", word, ALSO)
    space, rate = SPACES[name], config.coarse.learning_rate
    is_listed = space.grid() is not None
    further: list[Axis] = []
    if "learning_rate" in also:
        listed = tuple(float(f"{rate * factor:.2g}") for factor in (1 / 3, 1, 3))
        further.append(Listed(RATE, listed) if is_listed else Range(RATE, rate / 10, rate * 10, log=True))
    if "augmentation" in also:
        further.append(Listed(AUGMENTATION, (0.5, 1.0, 1.5)) if is_listed else Range(AUGMENTATION, 0.0, 2.0))
    if encoders:
        further.append(Listed(ENCODER, tuple(dict.fromkeys([config.network.segmentation_encoder, *encoders]))))
    return Space(space.name, (*space.axes, *further), space.after)


def configured(config: Config, point: Point, seed: int) -> Config:
    """The settings of one training.

    Raises:
        UserError: the point's values do not fit the other settings.
    """
    changes = [f"{field}={value}" for field, value in point.items() if field != AUGMENTATION]
    if AUGMENTATION in point:
        changes += _augmented(config, float(point[AUGMENTATION]))
    return override(config, [*changes, f"seed={seed}"])


def _augmented(config: Config, strength: float) -> list[str]:
    """Geometry and colours of the settings, changed less or more; flips, which have no strength, stay."""
    given = config.augmentation
    values = {
        "crop_min": max(0.1, 1 - strength * (1 - given.crop_min)),
        "rotation_deg": strength * given.rotation_deg,
        "shear_rad": strength * given.shear_rad,
        "shift_px": strength * given.shift_px,
        "zoom_min": max(0.1, 1 - strength * (1 - given.zoom_min)),
        "zoom_max": 1 + strength * (given.zoom_max - 1),
        "brightness": min(0.9, strength * given.brightness),
        "contrast": min(0.9, strength * given.contrast),
        "saturation": min(0.9, strength * given.saturation),
        "hue_deg": min(180.0, strength * given.hue_deg),
    }
    return [f"{AUGMENTATION}.{name}={value:.{_DIGITS}g}" for name, value in values.items()]


def in_words(point: Point) -> str:
    """A point as people read it: `K = 30, margin = 0.3`."""
    return ", ".join(
        f"{word(field)} = {value:g}" if not isinstance(value, str) else f"{word(field)} = {value}"
        for field, value in point.items()
    )


def word(field: str) -> str:
    """A setting's name as people read it."""
    known = {K: "K", MARGIN_FIELD: "margin", LAMBDA: "lambda", RATE: "learning rate", ENCODER: "encoder"}
    return known.get(field, field)


def require_grid(space: Space, algorithm: str) -> list[dict[str, Value]]:
    """Every point of a space.

    Raises:
        UserError: it is not a finite one.
    """
    grid = space.grid()
    if grid is None:
        ranges = ", ".join(axis.field for axis in space.axes if isinstance(axis, Range))
        raise UserError(
            f"The space {space.name} is no grid ({ranges} take any value), which {algorithm} needs; "
            "take --algorithm random, asha, optuna or pbt."
        )
    return grid
