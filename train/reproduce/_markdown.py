"""An experiment's outcome as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from train.reproduce._document import NONE, Document, Row, grid_of, measure_name, percent, series_of


def markdown(document: Document) -> str:
    """Say how the result was made, then the result, beside the paper's and the others' published figures."""
    name, title = document["name"], document.heading
    parts = [f"# {title}", _circumstances(document), f"![{title}]({name}.png)", "## Results", _scale(document)]
    parts += _RESULTS[document["kind"]](document)
    if document.get("published"):
        parts += ["## Published by others", _published(document)]
    for heading, key in (("Findings", "findings"), ("Notes", "notes")):
        if document.get(key):
            parts += [f"## {heading}", "\n".join(f"- {sentence}" for sentence in document[key])]
    runs = [f"- {row.label}: {_codes(row.entry['run'])}" for row in document.rows if row.entry.get("run")]
    if runs:
        parts += ["## Runs", "\n".join(runs)]
    return "\n\n".join(parts) + "\n"


def _circumstances(document: Document) -> str:
    data = document["data"]
    facts = [
        ("command", _codes([document["command"]]) if document.get("command") else ""),
        ("preset", document["preset"]),
        ("budget", f"{document['budget']:g}"),
        ("settings", _codes(document["settings"]) or "as in the preset"),
        ("data", f"{data['name']}, fingerprint {_codes([data['fingerprint'][:12]])}"),
        ("evaluated on", f"{document['split']}, {document['n_images']} images, protocol `{document['protocol']}`"),
        ("seeds", ", ".join(str(seed) for seed in document["seeds"])),
        ("machine", document["machine"]),
        ("date", document["date"]),
        ("code", _codes([document["code_version"]])),
    ]
    return _table(["", ""], [(key, str(value)) for key, value in facts if value != ""])


def _scale(document: Document) -> str:
    count = len(document["seeds"])
    spread = "one seed" if count == 1 else f"mean ± standard deviation over {count} seeds"
    bold = " The paper's optimum is bold." if document.get("optimum") else ""
    source = document.get("paper_source")
    paper = f" Paper: {source}." if source and document.has_paper else ""
    return f"Percent; {spread}; {NONE}: no score.{bold}{paper}"


def _rows_table(document: Document) -> list[str]:
    head, columns = [""], []
    for measure in document.measures:
        head.append(measure_name(measure))
        columns.append(lambda row, measure=measure: _ours(document, row, measure))
        if document.has_paper:
            head.append("paper")
            columns.append(lambda row, measure=measure: percent(row.paper(measure)))
    return [_table(head, [(row.label, *(column(row) for column in columns)) for row in document.rows])]


def _curve_tables(document: Document) -> list[str]:
    series, optimum = series_of(document.rows), document.get("optimum")
    xs = sorted({row.x for row in document.rows})
    parts = []
    for measure in document.measures:
        head = [document.get("x_label") or "x"]
        for name in series:
            head += [name or measure_name(measure)] + ["paper"] * document.has_paper
        lines = []
        for x in xs:
            is_optimum = optimum is not None and optimum["x"] == x
            cells = [_bold(f"{x:g}", is_optimum)]
            for rows in series.values():
                row = next((row for row in rows if row.x == x), None)
                cells.append(_bold(_ours(document, row, measure), is_optimum))
                cells += [percent(row.paper(measure) if row else None)] * document.has_paper
            lines.append(cells)
        parts += [f"**{measure_name(measure)}**", _table(head, lines)]
    return parts


def _grid_tables(document: Document) -> list[str]:
    if not document.rows:
        return []
    optimum = document.get("optimum")
    (down, ups), (across, acrosses) = grid_of(document.rows)
    cells = {(row.x[down], row.x[across]): row for row in document.rows}
    parts = []
    for measure in document.measures:
        lines = []
        for u in ups:
            line = [f"{u:g}"]
            for a in acrosses:
                is_optimum = optimum == {down: u, across: a}
                line.append(_bold(_ours(document, cells.get((u, a)), measure), is_optimum))
            lines.append(line)
        head = [f"{down} ↓ {across} →", *(f"{a:g}" for a in acrosses)]
        parts += [f"**{measure_name(measure)}**", _table(head, lines)]
    return parts


_RESULTS: dict[str, Callable[[Document], list[str]]] = {
    "table": _rows_table,
    "curve": _curve_tables,
    "grid": _grid_tables,
    "maps": _rows_table,
}


def _published(document: Document) -> str:
    measures = [m for m in document.measures if any(_value(row, m) is not None for row in document["published"])]
    lines = [
        (row["label"], *(percent(_value(row, measure)) for measure in measures), row["source"])
        for row in document["published"]
        if any(_value(row, measure) is not None for measure in measures)
    ]
    return _table(["", *(measure_name(measure) for measure in measures), "source"], lines, is_last_text=True)


def _value(row: dict[str, dict[str, float]], measure: str) -> float | None:
    return row["values"].get(measure)


def _ours(document: Document, row: Row | None, measure: str) -> str:
    if row is None or row.mean(measure) is None:
        return NONE
    count, seeds = row.count(measure), len(document["seeds"])
    part = f" ({count} of {seeds} seeds)" if count < seeds else ""
    return percent(row.mean(measure), row.std(measure)) + part


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, is_last_text: bool = False) -> str:
    rules = [":--"] + ["--:"] * (len(head) - 1)
    if is_last_text or head == ["", ""]:
        rules[-1] = ":--"
    lines = [head, rules, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _bold(text: str, is_bold: bool) -> str:
    return f"**{text}**" if is_bold and text != NONE else text


def _codes(texts: Iterable[str]) -> str:
    return ", ".join(f"`{text}`" for text in texts if text)
