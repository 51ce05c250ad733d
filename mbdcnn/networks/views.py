"""A network asked about an image and mirror images of it: the mean of what it says is mostly better than each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

_Said = TypeVar("_Said", Tensor, tuple[Tensor, ...])

# By how many there are: along which axes each view is mirrored (both: turned by half).
VIEWS: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((),),
    2: ((), (-2, -1)),
    4: ((), (-2, -1), (-2,), (-1,)),
}


def over_views(network: Callable[..., _Said], *maps: Tensor | None, views: int) -> _Said:
    """What a network says of some maps, in the mean over views of them, asked in one batch of `views` x B.

    Args:
        network: gives a tensor, or several.
        maps: `(B, *, *, *)`, or None: what it looks at.
        views: 1, 2 or 4.

    Returns:
        As `network`. What has height and width lies as the maps do.
    """
    if views == 1:
        return network(*maps)
    said = network(*(None if m is None else torch.cat([m.flip(axes) for axes in VIEWS[views]]) for m in maps))
    return _mean(said, views) if isinstance(said, Tensor) else tuple(_mean(part, views) for part in said)


def _mean(said: Tensor, views: int) -> Tensor:
    parts = said.unflatten(0, (views, -1)).unbind(0)
    back = (part.flip(axes) if part.ndim == 4 else part for part, axes in zip(parts, VIEWS[views], strict=True))
    return torch.stack(list(back)).mean(0)
