"""Room for trials, and clusters that are not there."""

import socket

import pytest

from mbdcnn.errors import UserError
from tune._cluster import cluster, room
from tune._work import Share

TWO = [{"CPU": 2.0}, {"CPU": 4.0, "GPU": 1.0}]


@pytest.mark.parametrize(
    ("share", "trials"),
    [
        (Share(1, 1, 0), 6),
        (Share(1, 0.5, 0), 12),
        (Share(1, 3, 0), 1),  # a process is on one machine
        (Share(1, 0.5, 0.25), 4),
        (Share(2, 1, 0), 3),
        (Share(4, 1, 0), 1),
        (Share(1, 0.1, 0), 60),
    ],
)
def test_how_many_trials_fit(share: Share, trials: int) -> None:
    assert room(share, TWO) == trials


@pytest.mark.parametrize(
    ("share", "sentence"),
    [
        (
            Share(1, 5, 0),
            "wants 5 CPUs on one machine, and the cluster's 2 machines have 2 CPUs and 0 GPUs, 4 CPUs and",
        ),
        (Share(1, 1, 2), "wants 1 CPUs and 2 GPUs on one machine"),
        (Share(7, 1, 0), "wants 7 processes with 1 CPUs each"),
    ],
)
def test_what_is_missing_is_said(share: Share, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        room(share, TWO)


def test_no_cluster_at_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        free = taken.getsockname()[1]
    with (
        pytest.raises(UserError, match=f"no Ray cluster at 127.0.0.1:{free} .*start one with `ray start --head`"),
        cluster(f"127.0.0.1:{free}"),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "sentence"),
    [("ray://127.0.0.1:10001", "send the search with `ray job submit`"), ("there", "give HOST:PORT, auto or local")],
)
def test_addresses_of_a_wrong_kind(address: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence), cluster(address):
        pass
