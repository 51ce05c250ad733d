"""The shell and the looks that every page shares: one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from mbdcnn import __version__
from mbdcnn.files import replacing

_STYLE = """
:root { --ink: #1e293b; --soft: #64748b; --rule: #e2e8f0; --ground: #f8fafc; --accent: #d97706; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.55 system-ui, -apple-system,
  "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 36px 28px 48px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 40px 0 4px; letter-spacing: -0.005em; }
h3 { font-size: 14px; margin: 0 0 10px; font-weight: 600; }
p { margin: 0 0 12px; max-width: 100ch; }
.box { overflow-x: auto; }
.box p { margin: 12px 0 0; }
.keys { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 20px; margin-bottom: 12px; }
.lead, .note { color: var(--soft); }
.note { font-size: 13.5px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 14px; margin: 22px
  0 14px; }
.card, .box { background: #fff; border: 1px solid var(--rule); border-radius: 10px; padding: 16px 18px; }
.card b { display: block; font-size: 32px; line-height: 1.15; font-weight: 650; font-variant-numeric:
  tabular-nums; }
.card.first b { color: var(--accent); }
.card span { color: var(--soft); font-size: 13.5px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 14px;
  margin-bottom: 14px; }
.box img { display: block; width: 100%; height: auto; max-height: 320px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 8px; text-align: right; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; font-size: 13.5px; color: var(--soft); }
tr:last-child > * { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; }
td.right { background: #ecfdf5; font-weight: 600; }
td.wrong { background: #fff1f2; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 16px; margin: 0; font-size: 14px; }
dt { font-weight: 600; }
dd { margin: 0; color: #475569; }
.key { display: inline-flex; align-items: center; gap: 7px; font-size: 13.5px; color:
  var(--soft); }
.key i { width: 20px; height: 0; border-top: 3px solid; border-radius: 2px; filter: drop-shadow(0 0 1px
  #0008); }
.case { background: #fff; border: 1px solid var(--rule); border-radius: 10px; padding: 12px 14px 14px;
  margin-top: 12px; break-inside: avoid; }
.case header { display: flex; flex-wrap: wrap; gap: 4px 18px; align-items: baseline; margin-bottom: 8px;
  font-size: 13.5px; color: var(--soft); }
.case header strong { color: var(--ink); font-size: 14.5px; }
.case header .bad { color: #be123c; font-weight: 600; }
figure { margin: 0; }
figcaption { font-size: 12.5px; color: var(--soft); margin-bottom: 4px; }
footer { margin-top: 40px; padding-top: 14px; border-top: 1px solid var(--rule); color: var(--soft);
  font-size: 13px; }
code { font: 12.5px ui-monospace, "SFMono-Regular", Menlo, "DejaVu Sans Mono", monospace; }
@media (max-width: 900px) { .pair { grid-template-columns: 1fr; } }
@media print { body { background: #fff; } main { padding: 0; } }
"""


def write_page(path: Path, title: str, body: Iterable[str], style: str = "") -> None:
    """Write a page, atomically.

    Args:
        path: the HTML file.
        title: of the window; plain text.
        body: the parts of the page as HTML; empty ones are passed over.
        style: CSS of this page alone.
    """
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8")


def cards(rows: Sequence[tuple[str, str, str]]) -> str:
    """Headline figures: name, value and note of each, the first one in colour; nothing for none."""
    boxes = [
        f'<div class="card{" first" if position == 0 else ""}"><span>{name}</span><b>{value}</b>'
        f"<span>{note}</span></div>"
        for position, (name, value, note) in enumerate(rows)
    ]
    return f'<div class="cards">{"".join(boxes)}</div>' if boxes else ""


def side_by_side(*boxes: str) -> str:
    """Boxes side by side where the page is wide enough; nothing for empty ones."""
    content = "".join(boxes)
    return f'<div class="pair">{content}</div>' if content else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{lines}</table>"


def chart(title: str, source: str | None, alternative: str) -> str:
    """A box with a picture; nothing where there is no picture."""
    if source is None:
        return ""
    return f'<div class="box"><h3>{title}</h3><img src="{source}" alt="{alternative}"></div>'


def footer(facts: Sequence[str]) -> str:
    """The page's end: what made it, and what it is not for."""
    return f"<footer>{' · '.join([f'mbdcnn {__version__}', *facts])}<br>For research. Not a medical device.</footer>"


def words(name: str) -> str:
    """A class's or stage's name as one reads it."""
    return name.replace("_", " ")


def count(number: int, noun: str) -> str:
    """A number with its noun, which takes an s but for one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
