"""A trial's run folder is its memory: what an earlier try trained is reported again and not trained again."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from mbdcnn import runs
from mbdcnn.data.fingerprint import keep
from mbdcnn.errors import Stopped
from mbdcnn.layout import FINGERPRINT
from tune._space import OPTIMUM
from tune._trial import EPOCH, SCORE, _train, epochs_in
from tune._work import STAGE, Work


class Told(list[Mapping[str, float]]):
    """Hears what a trial reports; goes away after some epochs, as a machine does."""

    def __init__(self, leave_after: int = 100) -> None:
        self.leave_after = leave_after

    def __call__(self, measures: Mapping[str, float]) -> None:
        self.append(measures)
        if len(self) == self.leave_after:
            raise Stopped("gone", 15)


@pytest.fixture
def run(work: Work) -> Path:
    keep(_manifest(work), work.out / FINGERPRINT)
    return work.run_folder(OPTIMUM, 0)


def _manifest(work: Work):  # type: ignore[no-untyped-def]
    from tune._data import load_data

    return load_data(work.data)[0]


def _events(run: Path) -> list[tuple[str, int]]:
    return [(row["event"], row["epoch"]) for row in map(json.loads, (run / "trial.jsonl").read_text().splitlines())]


def test_every_epoch_is_reported_and_an_interrupted_trial_goes_on_with_the_same_scores(work: Work, run: Path) -> None:
    whole, first, second, third = Told(), Told(leave_after=2), Told(), Told()
    other = run.with_name("uninterrupted")
    _train(work, OPTIMUM, 0, other, whole)
    with pytest.raises(Stopped):
        _train(work, OPTIMUM, 0, run, first)
    assert [row["epoch"] for row in epochs_in(run)] == [1, 2]
    _train(work, OPTIMUM, 0, run, second)
    _train(work, OPTIMUM, 0, run, third)
    scores = [[(row[EPOCH], row["JA"], row[SCORE]) for row in told] for told in (whole, second, third)]
    assert [row[EPOCH] for row in whole] == [1, 2, 3]
    assert scores[0] == scores[1] == scores[2]
    assert [row[SCORE] for row in whole] == [max(r["JA"] for r in whole[: n + 1]) for n in range(3)]
    assert _events(run) == [("begins", 0), ("goes on", 2), ("is finished", 3), ("was finished", 3)]
    weights = [(folder / STAGE / runs.WEIGHTS).read_bytes() for folder in (run, other)]
    assert weights[0] == weights[1]
    assert not (run / STAGE / runs.CHECKPOINTS).exists()
    assert (run / FINGERPRINT).is_file()


def test_an_epoch_without_its_checkpoint_is_not_counted(work: Work, run: Path) -> None:
    with pytest.raises(Stopped):
        _train(work, OPTIMUM, 0, run, Told(leave_after=1))
    log = run / STAGE / runs.LOG
    row = json.loads(log.read_text().splitlines()[-1])
    with log.open("a") as file:
        file.write(json.dumps({**row, "epoch": 2}) + "\n" + '{"stage": "coarse", "ep')
    assert [row["epoch"] for row in epochs_in(run)] == [1]


def test_a_folder_without_a_trial_has_no_epochs(tmp_path: Path) -> None:
    assert epochs_in(tmp_path) == []
