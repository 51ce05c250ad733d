import pytest

from train.reproduce.catalog import EXPERIMENTS
from train.reproduce.published import COMPETITORS, PAPER, competitors, paper_figures, paper_source


def every_row():
    for name, paper in PAPER.items():
        for label, values in paper.rows.items():
            yield pytest.param(name, values, id=f"paper-{name}-{label}")
    for name, rows in COMPETITORS.items():
        for row in rows:
            yield pytest.param(name, row.values, id=f"others-{name}-{row.label}")


@pytest.mark.parametrize(("name", "values"), [*every_row()])
def test_rows_are_fractions_of_measures_that_the_experiment_reports(name, values):
    assert values
    assert set(values) <= set(EXPERIMENTS[name].measures)
    assert all(0.5 < value < 1 for value in values.values())


@pytest.mark.parametrize(("name", "values"), [*every_row()])
def test_jaccard_and_dice_fit_together(name, values):
    # Per image DI = 2 JA / (1 + JA), a concave function: the mean DI is at most that of the mean JA.
    if "enhanced.DI" in values:
        ja, di = values["enhanced.JA"], values["enhanced.DI"]
        assert ja < di <= 2 * ja / (1 + ja) + 0.0006  # both are rounded


@pytest.mark.parametrize("name", PAPER)
def test_every_arm_that_the_paper_has_is_an_arm_of_ours(name, sample):
    labels = {arm.label for arm in EXPERIMENTS[name].arms(sample)}
    assert set(PAPER[name].rows) <= labels


def test_the_abstracts_figures():
    assert paper_figures("table1", "MB-DCNN") == {"enhanced.JA": 0.804, "classification.mean_AUC": 0.938}
    assert paper_figures("table3", "MB-DCNN") == {"enhanced.JA": 0.894, "classification.melanoma.AUC": 0.977}


def test_the_papers_directions():
    assert paper_figures("table4", "hybrid loss")["enhanced.JA"] > paper_figures("table4", "Dice loss")["enhanced.JA"]
    for name in ("table5", "table6", "table7"):
        for claim in EXPERIMENTS[name].claims:
            higher, lower = (paper_figures(name, label).get(claim.measure) for label in (claim.higher, claim.lower))
            assert higher is None or lower is None or higher > lower


def test_what_the_paper_does_not_say_is_absent():
    assert paper_figures("fig6", "lambda = 0.05") == {}
    assert paper_figures("table6", "coarse-SN, trained on without a map") == {}
    assert competitors("table4") == []


def test_every_row_says_where_it_is_from():
    for name in COMPETITORS:
        assert all({"label", "source", "values"} == set(row) and "20" in row["source"] for row in competitors(name))
    assert all("2020" in paper_source(name) for name in EXPERIMENTS)
    assert "melanoma" in paper_source("table2")


def test_a_callers_changes_stay_the_callers():
    paper_figures("table1", "MB-DCNN").clear()
    competitors("table1")[0]["values"].clear()
    assert paper_figures("table1", "MB-DCNN")
    assert competitors("table1")[0]["values"]
