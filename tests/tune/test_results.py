"""What is left of a search for people and programs."""

import csv
import json
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from mbdcnn.config import differences, load
from mbdcnn.errors import UserError
from tune._outcome import best_of, tried
from tune._results import require_same_search, write_results
from tune._round import FAILED, STOPPED, Trial
from tune._space import AUGMENTATION, SPACES
from tune._work import Work

HEAD: dict[str, Any] = {
    "name": "search",
    "search": {"space": "paper", "algorithm": "grid", "config": {"seed": 0, "loss.margin": 0.3}},
    "command": "mbdcnn tune --data <DIR>",
    "preset": "smoke",
    "settings": [],
    "seeds": [0, 1],
    "data": {"name": "sample", "fingerprint": "0" * 64},
    "n_images": 6,
    "machine": "2 cores",
    "date": "2026-01-01",
    "code_version": "0",
    "notes": ["A note."],
}


@pytest.fixture
def trials(trial: Callable[..., Trial]) -> list[Trial]:
    """Two points with two seeds, one stopped, one failed, and lambda varied at the best."""
    return [
        *(trial(30, 0.3, 0.70 + 0.01 * seed, seed=seed) for seed in (0, 1)),
        *(trial(50, 0.2, 0.73 + 0.01 * seed, seed=seed) for seed in (0, 1)),
        trial(10, 0.1, 0.4, state=STOPPED, epochs=1),
        trial(100, 0.1, None, state=FAILED, epochs=0, best_epoch=None, reason="killed, <perhaps>"),
        *(trial(50, 0.2, 0.70, seed=seed, weight=0.5, round="last") for seed in (0, 1)),
    ]


def test_the_best_point_is_a_file_that_train_takes(work: Work, trials: list[Trial]) -> None:
    work.out.mkdir()
    document = write_results(work, HEAD, trials, done=True)
    best = load(work.out / "best.yaml")
    assert set(differences(best, work.config)) == {"loss.top_k", "loss.margin"}
    assert (best.loss.top_k, best.loss.margin, best.loss.lambda_rank) == (50, 0.2, 0.05)
    assert document["best"]["point"]["loss.top_k"] == 50
    assert document["best"]["JA"] == pytest.approx(0.735)
    assert document["best"]["seeds"] == [0, 1]
    assert document == json.loads((work.out / "search.json").read_text())
    assert (document["epochs_trained"], document["epochs_of_all_to_their_end"]) == (19, 24)


def test_every_trial_is_a_line(work: Work, trials: list[Trial]) -> None:
    work.out.mkdir()
    write_results(work, HEAD, trials, done=False)
    with (work.out / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(trials)
    assert rows[5]["reason"] == "killed, <perhaps>"
    assert (rows[4]["state"], rows[4]["epochs"], rows[4]["loss.top_k"]) == ("stopped early", "1", "10")


def test_the_page_and_the_papers_figures(work: Work, trials: list[Trial]) -> None:
    work.out.mkdir()
    write_results(work, HEAD, trials, done=False)
    page = (work.out / "report.html").read_text()
    for text in ("Not finished", "73.5 ± 0.7", "killed, &lt;perhaps&gt;", "mbdcnn tune --data &lt;DIR&gt;", "A note."):
        assert text in page
    assert page.count("data:image/svg+xml") == 4  # figures 5 and 6, the settings, the trials as they learnt
    for name in ("fig5", "fig6"):
        with Image.open(work.out / f"{name}.png") as picture:
            assert min(picture.size) > 300
    assert "| 30 | – | – | **70.5 ± 0.7** |" in (work.out / "fig5.md").read_text()
    assert "0.5" in (work.out / "fig6.md").read_text()


def test_other_spaces_have_the_general_charts_alone(work: Work, trials: list[Trial]) -> None:
    work.out.mkdir()
    write_results(work, {**HEAD, "search": {**HEAD["search"], "space": "wide"}}, trials, done=True)
    assert not (work.out / "fig5.png").exists()
    assert (work.out / "report.html").read_text().count("data:image/svg+xml") == 2


def test_nothing_tried_yet_leaves_what_the_search_is(work: Work) -> None:
    work.out.mkdir()
    assert write_results(work, HEAD, [], done=False)["best"] is None
    assert [path.name for path in work.out.iterdir()] == ["search.json"]


def test_no_success_yet(work: Work, trial: Callable[..., Trial]) -> None:
    work.out.mkdir()
    write_results(work, HEAD, [trial(10, 0.1, None, state=FAILED, epochs=0, reason="no memory")], done=False)
    assert "No point has succeeded yet." in (work.out / "report.html").read_text()
    assert not (work.out / "best.yaml").exists()


def test_a_folder_of_another_search_is_refused(work: Work, trials: list[Trial]) -> None:
    work.out.mkdir()
    require_same_search(work.out, HEAD["search"], resume=False)
    write_results(work, HEAD, trials, done=True)
    require_same_search(work.out, HEAD["search"], resume=True)
    with pytest.raises(UserError, match="holds this search already; go on with it with --resume"):
        require_same_search(work.out, HEAD["search"], resume=False)
    other = {**HEAD["search"], "algorithm": "asha", "config": {"seed": 0, "loss.margin": 0.2}}
    with pytest.raises(UserError, match=r"holds another search \(algorithm, config.loss.margin, see .*search.json\)"):
        require_same_search(work.out, other, resume=True)
    (work.out / "search.json").write_text("{")
    with pytest.raises(UserError, match="is damaged; name another --out"):
        require_same_search(work.out, other, resume=True)


def test_equal_settings_share_a_run_folder_and_others_do_not(work: Work) -> None:
    (point, other) = work.space.draw(2, 0)
    assert work.run_folder(point, 0) == work.run_folder(dict(reversed(list(point.items()))), 0)
    assert len({work.run_folder(p, s) for p in (point, other) for s in (0, 1)}) == 4
    assert work.trained_with(point, 3).engine.keep_checkpoints == 1
    assert best_of(tried([])) is None
    assert AUGMENTATION not in {axis.field for axis in SPACES["paper"].axes}
