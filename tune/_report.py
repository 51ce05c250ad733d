"""A search's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mbdcnn.charts import svg_uri
from mbdcnn.page import cards, chart, count, footer, table, write_page
from train.reproduce.render import figure_of
from tune._charts import learning_figure, settings_figure, varying
from tune._outcome import Tried, best_of, is_optimum
from tune._round import FAILED, Trial
from tune._space import OPTIMUM, in_words, word

_STYLE = ".box img { max-height: 480px; }"
_SHOWN = 40  # points in the table; trials.csv has all


def write_search_page(
    path: Path, search: Mapping[str, Any], points: Sequence[Tried], trials: Sequence[Trial], figures: Sequence[Any]
) -> None:
    """Write the page, atomically.

    Args:
        path: the HTML file, in the results folder.
        search: the search's document.
        points: that were tried.
        trials: all of them.
        figures: documents of the paper's figures.
    """
    spec = search["search"]
    title = f"Search: {spec['space']} by {spec['algorithm']}"
    best = best_of(points)
    state = "" if search["finished"] else " <strong>Not finished.</strong>"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">coarse-SN, preset {escape(search["preset"])}, {escape(search["data"]["name"])}; JA on '
        f"{search['n_images']} validation images.{state}</p>",
        cards(_headline(best, points, trials)),
        *(f"<p>{escape(sentence)}</p>" for sentence in search["findings"]),
        "<h2>Where it is good</h2>",
        *(chart(escape(f["title"]), svg_uri(figure_of(f)), f["name"]) for f in figures),
        chart("JA over each setting", svg_uri(settings_figure(points)), "settings") if varying(points) else "",
        chart("Each trial as it learnt", svg_uri(learning_figure(trials, path.parent, best)), "learning"),
        "<h2>Points</h2>",
        f'<div class="box">{_points(points)}</div>',
        _failures(trials),
        "<h2>Notes</h2>",
        *(f'<p class="note">{escape(note)}</p>' for note in search["notes"]),
        f'<p class="note"><code>{escape(search["command"])}</code></p>',
        footer([escape(search["machine"]), search["date"], escape(search["code_version"])]),
    ]
    write_page(path, title, body, _STYLE)


def _headline(best: Tried | None, points: Sequence[Tried], trials: Sequence[Trial]) -> list[tuple[str, str, str]]:
    rows = []
    if best is not None:
        rows.append(("best JA", _percent(best), escape(in_words(best.point))))
    at_optimum = next((p for p in points if is_optimum(p.point) and p.scores), None)
    if at_optimum is not None:
        rows.append(("the paper's optimum here", _percent(at_optimum), escape(in_words(OPTIMUM))))
    minutes = sum(trial.seconds for trial in trials) / 60
    rows.append(("trials", str(len(trials)), f"{sum(t.epochs for t in trials)} epochs, {minutes:.0f} min of training"))
    return rows


def _points(points: Sequence[Tried]) -> str:
    if not points:
        return "<p>None yet.</p>"
    ordered = sorted(points, key=lambda p: (-p.succeeded, -len(p.scores), -(p.mean or 0.0)))
    fields = list(points[0].point)
    head = [*(escape(word(field)) for field in fields), "JA", "seeds", "state"]
    rows = [
        [
            *(escape(f"{v:g}" if not isinstance(v := p.point[field], str) else v) for field in fields),
            _percent(p),
            str(len(p.scores)),
            ", ".join(dict.fromkeys(trial.state for trial in p.trials)),
        ]
        for p in ordered[:_SHOWN]
    ]
    more = len(ordered) - _SHOWN
    return table(head, rows) + (f"<p>{count(more, 'further point')} in trials.csv.</p>" if more > 0 else "")


def _failures(trials: Sequence[Trial]) -> str:
    failed = [trial for trial in trials if trial.state == FAILED]
    rows = [[escape(f"{in_words(t.point)}, seed {t.seed}"), str(t.epochs), escape(t.reason)] for t in failed]
    return f'<h2>Failed</h2><div class="box">{table(["trial", "epochs", "reason"], rows)}</div>' if rows else ""


def _percent(point: Tried) -> str:
    if point.mean is None:
        return "–"
    return f"{100 * point.mean:.1f}" + ("" if point.std is None else f" ± {100 * point.std:.1f}")
