from __future__ import annotations

from collections import Counter

import pytest

from mbdcnn.data._drawn_splits import draw_splits


def of_one_class(n: int, label: str | None = "x") -> dict[str, str | None]:
    return {f"image {i}": label for i in range(n)}


@pytest.mark.parametrize(
    ("n", "counts"),
    [
        (1, (1, 0, 0)),
        (2, (1, 1, 0)),
        (3, (1, 1, 1)),
        (4, (2, 1, 1)),
        (10, (7, 2, 1)),
        (20, (14, 3, 3)),
        (100, (70, 15, 15)),
        (1000, (700, 150, 150)),
    ],
)
def test_quotas(n: int, counts: tuple[int, int, int]) -> None:
    drawn = Counter(draw_splits(of_one_class(n)).values())
    assert tuple(drawn[split] for split in ("training", "validation", "test")) == counts


def test_every_class_is_in_every_split() -> None:
    labels = {f"{label} {i}": label for label, n in (("a", 3), ("b", 50), (None, 7), ("c", 400)) for i in range(n)}
    drawn = draw_splits(labels)
    assert drawn.keys() == labels.keys()
    for label in ("a", "b", "c", None):
        assert {drawn[i] for i, own in labels.items() if own == label} == {"training", "validation", "test"}


def test_the_draw_does_not_depend_on_the_order_or_on_other_classes() -> None:
    labels = of_one_class(50)
    shuffled = dict(reversed(labels.items()))
    others = {f"other {i}": "y" for i in range(30)}
    drawn = draw_splits(labels)
    assert draw_splits(shuffled) == drawn
    assert {k: v for k, v in draw_splits(labels | others).items() if k in labels} == drawn


def test_the_draw_is_the_same_on_every_machine_and_in_every_version() -> None:
    drawn = draw_splits(of_one_class(10))
    assert [i for i in range(10) if drawn[f"image {i}"] != "training"] == [0, 4, 5]


def test_another_image_moves_two_others_at_most() -> None:
    labels = of_one_class(1)
    before = draw_splits(labels)
    for n in range(1, 300):
        labels[f"image {n}"] = "x"
        after = draw_splits(labels)
        assert sum(before[i] != after[i] for i in before) <= 2
        before = after
