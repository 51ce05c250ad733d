import itertools
import json
import math
import statistics

import numpy as np
import pytest
from PIL import Image

from train.reproduce import published
from train.reproduce._curve import curve_figure
from train.reproduce._document import Document
from train.reproduce._dot_chart import table_figure
from train.reproduce._heat_map import grid_figure
from train.reproduce.render import write_map_sheet, write_report

FIGURES = {"table": table_figure, "curve": curve_figure, "grid": grid_figure}


def row(label, values, *, x=None, series=None, paper=None):
    known = {measure: [v for v in scores if v is not None] for measure, scores in values.items()}
    return {
        "label": label,
        "x": x,
        "series": series,
        "values": values,
        "mean": {m: statistics.fmean(v) if v else None for m, v in known.items()},
        "std": {m: statistics.stdev(v) if len(v) > 1 else None for m, v in known.items()},
        "paper": paper or {},
        "run": ["runs/enhanced-1a2b"],
    }


def document(kind, measures, rows, *, name="table4", seeds=(0, 1), **more):
    return {
        "name": name,
        "title": "Dice alone / hybrid loss",
        "kind": kind,
        "preset": "compact",
        "budget": 0.5,
        "settings": ["preprocessing.image_size=128"],
        "seeds": list(seeds),
        "protocol": "single",
        "split": "validation",
        "n_images": 150,
        "data": {"name": "isic2017", "fingerprint": "0123456789abcdef"},
        "machine": "2 cores",
        "date": "2020-01-02",
        "code_version": "0.1.0",
        "measures": measures,
        "rows": rows,
        **more,
    }


def table(**more):
    rows = [
        row("Dice loss", {"enhanced.JA": [0.774, 0.778]}, paper={"enhanced.JA": 0.770}),
        row("hybrid loss", {"enhanced.JA": [0.781, None]}, paper={"enhanced.JA": 0.800}),
        row("not trained | yet", {"enhanced.JA": [None, None]}),
    ]
    return document("table", ["enhanced.JA"], rows, **more)


def curve(**more):
    rows = [
        row(f"{series} {x}", {"JA": [0.70 + gain, 0.71 + gain + x / 30000]}, x=x, series=series)
        for series, gain in (("coarse-SN alone", 0.0), ("enhanced-SN, helped by mask-CN", 0.004))
        for x in (100, 250, 500, 1000, 1500, 2000)
    ]
    return document("curve", ["JA"], rows, name="fig8", x_label="pixel labels", **more)


def grid(**more):
    rows = [
        row(f"K = {k}", {"coarse.JA": [0.76 + k / 10000, None if margin == 0.4 else 0.77]},
            x={"top_k": k, "margin": margin})
        for k in (10, 30, 50)
        for margin in (0.1, 0.3, 0.4)
        if (k, margin) != (50, 0.4)
    ]  # fmt: skip
    return document("grid", ["coarse.JA"], rows, name="fig5", optimum={"top_k": 30, "margin": 0.3}, **more)


def unfinished(content):
    """As after a run that was stopped before it scored anything, or before it wrote these keys at all."""
    for position, entry in enumerate(content["rows"]):
        for key in ("values", "mean", "std"):
            if position % 2:
                del entry[key]
            else:
                entry[key] = dict.fromkeys(content["measures"], [None] if key == "values" else None)
        del entry["paper"]
    return content


def texts(figure):
    """What is written in a picture, with the place that it takes."""
    figure.draw_without_rendering()
    renderer = figure._get_renderer()
    found = [
        text
        for axes in figure.axes
        for text in (
            *axes.texts, axes.title, axes._left_title, *axes.get_xticklabels(), *axes.get_yticklabels(),
            axes.xaxis.label, axes.yaxis.label,
        )
    ]  # fmt: skip
    found += [figure._suptitle, *(text for legend in figure.legends for text in legend.get_texts())]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in found if text.get_text()]


def written(figure):
    return [text for text, _ in texts(figure)]


def lines_of(markdown):
    return [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("|")]


def report(tmp_path, content):
    write_report(content, tmp_path)
    return (tmp_path / f"{content['name']}.md").read_text(encoding="utf-8")


class TestMarkdown:
    def test_says_how_the_result_was_made(self, tmp_path):
        text = report(tmp_path, table(command="mbdcnn reproduce table4 --data isic2017"))
        assert text.startswith("# Table 4: Dice alone / hybrid loss\n")
        assert "![Table 4: Dice alone / hybrid loss](table4.png)" in text
        facts = dict(cells for cells in lines_of(text) if len(cells) == 2)
        assert facts["command"] == "`mbdcnn reproduce table4 --data isic2017`"
        assert facts["settings"] == "`preprocessing.image_size=128`"
        assert facts["data"] == "isic2017, fingerprint `0123456789ab`"
        assert facts["evaluated on"] == "validation, 150 images, protocol `single`"
        for key, value in (("preset", "compact"), ("budget", "0.5"), ("seeds", "0, 1"), ("date", "2020-01-02")):
            assert facts[key] == value

    def test_table_has_ours_beside_the_papers(self, tmp_path):
        lines = lines_of(report(tmp_path, table()))
        assert ["enhanced JA", "paper"] in [cells[-2:] for cells in lines]
        assert ["Dice loss", "77.6 ± 0.3", "77.0"] in lines
        assert ["hybrid loss", "78.1 (1 of 2 seeds)", "80.0"] in lines
        assert ["not trained \\| yet", "–", "–"] in lines

    def test_without_the_papers_figures_there_is_no_column_for_them(self, tmp_path):
        text = report(tmp_path, table() | {"rows": [row("a", {"enhanced.JA": [0.5]})], "seeds": [0]})
        assert ["a", "50.0"] in lines_of(text)
        assert "paper" not in text.lower()
        assert "one seed" in text
        assert "±" not in text

    def test_names_of_measures(self, tmp_path):
        measures = ["enhanced.JA", "JA", "classification.mean_AUC", "classification.seborrheic_keratosis.AUC"]
        text = report(tmp_path, document("table", measures, [row("a", {m: [0.5, 0.5] for m in measures})]))
        assert "| enhanced JA | JA | mean AUC | seborrheic keratosis AUC |" in text

    def test_published_rows_that_fit_come_with_their_source(self, tmp_path):
        text = report(tmp_path, table(published=published.competitors("table1")))
        assert any(cells[:2] == ["FrCN (2018)", "77.1"] and "Al-masni" in cells[2] for cells in lines_of(text))
        assert "Matsunaga" not in text  # classification only

    def test_says_where_the_papers_figures_are_from(self, tmp_path):
        source = published.paper_source("table4")
        assert f" Paper: {source}." in report(tmp_path, table(paper_source=source))
        without = table(paper_source=source) | {"rows": [row("a", {"enhanced.JA": [0.5, 0.6]})]}
        assert source not in report(tmp_path, without)

    def test_findings_notes_and_runs(self, tmp_path):
        text = report(tmp_path, table(findings=["hybrid > Dice: holds."], notes=["No test split."]))
        assert "## Findings\n\n- hybrid > Dice: holds.\n" in text
        assert "## Notes\n\n- No test split.\n" in text
        assert "- Dice loss: `runs/enhanced-1a2b`" in text

    def test_curve_has_a_column_per_series(self, tmp_path):
        lines = lines_of(report(tmp_path, curve()))
        assert ["pixel labels", "coarse-SN alone", "enhanced-SN, helped by mask-CN"] in lines
        assert ["100", "70.7 ± 0.9", "71.1 ± 0.9"] in lines

    def test_curve_marks_the_optimum(self, tmp_path):
        rows = [row(f"{x}", {"coarse.JA": [0.7, 0.7]}, x=x) for x in (0.5, 0.05)]
        content = document("curve", ["coarse.JA"], rows, name="fig6", optimum={"x": 0.05})
        lines = lines_of(report(tmp_path, content))
        assert lines[-2:] == [["**0.05**", "**70.0 ± 0.0**"], ["0.5", "70.0 ± 0.0"]]

    def test_grid_is_a_matrix_with_holes(self, tmp_path):
        lines = lines_of(report(tmp_path, grid()))
        assert lines[-5] == ["top_k ↓ margin →", "0.1", "0.3", "0.4"]
        assert lines[-2] == ["30", "76.6 ± 0.5", "**76.6 ± 0.5**", "76.3 (1 of 2 seeds)"]
        assert lines[-1][-1] == "–"

    def test_maps_leave_the_picture_to_the_caller(self, tmp_path):
        text = report(tmp_path, table() | {"kind": "maps", "name": "fig7"})
        assert "![Figure 7: Dice alone / hybrid loss](fig7.png)" in text
        assert not (tmp_path / "fig7.png").exists()


class TestPictures:
    @pytest.mark.parametrize(
        "content",
        [
            table(),
            table(published=published.competitors("table1")),
            document(
                "table",
                ["enhanced.JA", "coarse.JA", "classification.mean_AUC"],
                [row("a long label of an arm that goes on and on", {"enhanced.JA": [0.7], "coarse.JA": [0.999]})],
                seeds=[0],
            ),
            curve(),
            curve(optimum={"x": 500}),
            grid(),
            unfinished(table()),
            unfinished(curve()),
            unfinished(grid()),
        ],
        ids=["table", "competitors", "measures", "curve", "optimum", "grid", "no table", "no curve", "no grid"],
    )
    def test_nothing_is_cut_off_or_written_over(self, content):
        figure = FIGURES[content["kind"]](Document(content))
        found = texts(figure)
        width, height = figure.get_size_inches() * figure.dpi
        for text, box in found:
            assert box.x0 >= 0, text
            assert box.y0 >= 0, text
            assert box.x1 <= width, text
            assert box.y1 <= height, text
        for (one, a), (other, b) in itertools.combinations(found, 2):
            # A point of the line's own leading may be shared.
            apart = a.x1 <= b.x0 + 1 or b.x1 <= a.x0 + 1 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
            assert apart, (one, other)

    def test_table_writes_every_value(self):
        found = written(table_figure(Document(table(published=published.competitors("table1")))))
        for text in ("77.6 ± 0.3", "78.1", "– no score", "77.0", "80.0", "76.5", "FrCN (2018)", "enhanced JA, %"):
            assert text in found
        assert "Matsunaga et al. (2017)" not in found

    def test_error_bars_are_the_standard_deviation(self):
        axes = table_figure(Document(table())).axes[0]
        (line,) = axes.containers[0].lines[2][0].get_segments()
        assert line[:, 0] == pytest.approx([77.6 - 0.2828, 77.6 + 0.2828], abs=1e-3)
        first, *_ = curve_figure(Document(curve())).axes[0].containers[0].lines[2][0].get_segments()
        half = 100 * statistics.stdev([0.70, 0.71 + 100 / 30000])
        assert first[1, 1] - first[0, 1] == pytest.approx(2 * half)

    def test_one_seed_has_no_error_bar(self):
        content = document("table", ["JA"], [row("a", {"JA": [0.7]})], seeds=[0])
        figure = table_figure(Document(content))
        assert not figure.axes[0].containers[0].has_xerr
        assert "ours, one seed" in written(figure)

    def test_small_differences_are_not_blown_up(self):
        content = document("table", ["JA"], [row("a", {"JA": [0.7]}), row("b", {"JA": [0.7001]})], seeds=[0])
        low, high = table_figure(Document(content)).axes[0].get_xlim()
        assert high - low == pytest.approx(4)

    def test_curve_names_its_lines_and_marks_the_optimum(self):
        found = written(curve_figure(Document(curve(optimum={"x": 500}))))
        for text in ("coarse-SN alone", "enhanced-SN, helped by\nmask-CN", "the paper's optimum", "pixel labels"):
            assert text in found

    def test_curve_reaches_to_the_ends_of_its_points(self):
        axes = curve_figure(Document(curve())).axes[0]
        assert axes.get_xscale() == "log"
        assert list(axes.xaxis.get_majorticklocs()) == [100, 250, 500, 1000, 1500, 2000]

    def test_grid_outlines_the_optimum(self):
        (axes,) = grid_figure(Document(grid())).axes
        (outline,) = axes.patches
        centre = np.array(outline.get_xy()) + np.array([outline.get_width(), outline.get_height()]) / 2
        assert centre == pytest.approx([1, 1])  # margin 0.3 is the second column, K = 30 the second row
        assert sum(text.get_text() == "–" for text in axes.texts) == 1
        assert axes.images[0].get_array().count() == 8


class TestFiles:
    @pytest.mark.parametrize("content", [table(), curve(), grid()], ids=["table", "curve", "grid"])
    def test_both_files_from_what_json_keeps(self, tmp_path, content):
        write_report(json.loads(json.dumps(content)), tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {f"{content['name']}.md", f"{content['name']}.png"}
        with Image.open(tmp_path / f"{content['name']}.png") as picture:
            assert picture.format == "PNG"
            assert 500 < picture.width < 1500

    def test_undefined_numbers_are_dashes(self, tmp_path):
        content = table()
        content["rows"][0]["mean"]["enhanced.JA"] = math.nan
        assert ["Dice loss", "–", "77.0"] in lines_of(report(tmp_path, content))

    def test_an_unknown_kind_leaves_the_old_files(self, tmp_path):
        write_report(table(), tmp_path)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(KeyError, match="pie"):
            write_report(table() | {"kind": "pie"}, tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class TestMapSheet:
    def image(self, height=300, width=500):
        return np.full((height, width, 3), 180, np.uint8)

    def truth(self, height=300, width=500):
        mask = np.zeros((height, width), bool)
        mask[100:200, 200:300] = True
        return mask

    def test_one_line_per_image_with_all_its_maps(self, tmp_path):
        cam = np.zeros((7, 7), np.float32)
        cam[3, 3] = 1
        maps = [("without coarse masks", cam), ("with coarse masks", -cam)]
        one = [("a", "nevus", self.image(), self.truth(), maps)]
        write_map_sheet(tmp_path / "one.png", one)
        write_map_sheet(tmp_path / "two.png", [*one, ("b", "seborrheic_keratosis", self.image(900, 300), None, maps)])
        with Image.open(tmp_path / "one.png") as small, Image.open(tmp_path / "two.png") as large:
            assert small.width == large.width
            assert large.height > small.height + 300
            pixels = np.asarray(small.convert("RGB")).astype(int)
        third = pixels.shape[1] // 3
        warm = (pixels[..., 0] - pixels[..., 2]) > 60
        assert warm[:, third : 2 * third].sum() > 500  # the map with evidence
        assert not warm[:, 2 * third :].any()  # the negative one has none
        drawn = (abs(pixels - (0x22, 0xD3, 0xEE)) < 40).all(axis=-1)
        for start in (0, third, 2 * third):
            assert drawn[:, start : start + third].sum() > 100  # the true outline
        assert list(tmp_path.glob("*.part")) == []

    @pytest.mark.parametrize("share", [0, 1])
    def test_an_empty_or_full_truth_has_no_outline(self, tmp_path, share):
        rows = [("a", "nevus", self.image(), np.full((300, 500), bool(share)), [("map", np.ones((4, 4)))])]
        write_map_sheet(tmp_path / "m.png", rows)
        with Image.open(tmp_path / "m.png") as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        assert not (abs(pixels - (0x22, 0xD3, 0xEE)) < 40).all(axis=-1).any()

    def test_no_rows(self, tmp_path):
        with pytest.raises(ValueError, match="at least one"):
            write_map_sheet(tmp_path / "m.png", [])
