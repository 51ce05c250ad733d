"""A data set's fingerprint as a page: plots, the pictures that are there twice side by side, the files left out."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from mbdcnn.data._fingerprint_charts import class_counts, colours, lesion_areas, sizes
from mbdcnn.data._glance import Glance
from mbdcnn.data.leakage import SAME_FILE, SAME_LESION, SAME_PIXELS
from mbdcnn.data.manifest import Manifest
from mbdcnn.layout import FINGERPRINT
from mbdcnn.page import cards, chart, count, footer, side_by_side, table, words, write_page
from mbdcnn.preprocessing import decode_image

_SHOWN = 40  # pairs of each kind with pictures
_LISTED = 200  # files left out
_SIDE = 220
_RELATIONS = {SAME_FILE: "same file", SAME_PIXELS: "same pixels", SAME_LESION: "near-duplicate"}
_NONE = "–"
_STYLE = """
.alarm { background: #fff1f2; border: 2px solid #be123c; border-radius: 10px; padding: 16px 18px; margin: 22px 0; }
.alarm h2 { margin: 0 0 4px; color: #be123c; }
.hint { background: #fffbeb; border: 1px solid #fcd34d; border-radius: 10px; padding: 12px 18px; margin: 14px 0; }
.hint ul { margin: 0; padding-left: 20px; }
.alike { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 12px; }
.alike .case { margin: 0; }
.twins { display: grid; grid-template-columns: 1fr 1fr; gap: 10px; }
.twins img { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: var(--rule);
  border-radius: 5px; }
.twins figcaption { margin: 4px 0 0; overflow-wrap: anywhere; }
.counts { margin-bottom: 14px; overflow-x: auto; }
.files { table-layout: fixed; }
.files th, .files td { text-align: left; overflow-wrap: anywhere; }
"""


def write_fingerprint_page(
    path: Path, document: Mapping[str, Any], manifest: Manifest, glances: Sequence[Glance]
) -> None:
    """Write the page.

    Args:
        path: the HTML file; the page loads nothing from elsewhere.
        document: what `describe` made of the manifest and glances.
        manifest: of the data set, whose folder the pictures of the pairs are read from.
        glances: of its images.
    """
    title = f"Data: {document['name']}"
    leaks = document["leakage"]
    inside = [pair for pair in document["pairs"] if pair not in leaks]
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{_lead(document)}</p>',
        _cards(document),
        _alarm(leaks, manifest),
        _hints(document["warnings"]),
        _counts(document),
        side_by_side(
            chart("Classes", class_counts(document), "Share of each class in each split"),
            chart("Lesion area", lesion_areas(document), "Histogram of the lesion's share of the image"),
            chart("Image sizes", sizes(manifest.items), "Width and height of the images"),
            chart("Colour", colours(manifest.items, glances), "Mean red, green and blue of the images"),
        ),
        _colours(document),
        _section(
            "The same picture twice in one split", "They count twice in training or in a score.", inside, manifest
        ),
        _faults(document["faults"]),
        footer([f"data <code>{document['fingerprint'][:12]}</code>", f"all figures: <code>{FINGERPRINT}</code>"]),
    ]
    write_page(path, title, body, _STYLE)


def _lead(document: Mapping[str, Any]) -> str:
    held = [f"{held['images']} {split}" for split, held in document["splits"].items() if held["images"]]
    return (
        f"{count(document['images'], 'image')}: {', '.join(held)}. {count(len(document['faults']), 'file')} left out."
    )


def _cards(document: Mapping[str, Any]) -> str:
    leaks, pairs = len(document["leakage"]), len(document["pairs"])
    rows = [
        ("Leakage", str(leaks), "pairs of images that show the same in two splits"),
        ("Duplicates", str(pairs - leaks), "pairs of images that show the same within a split"),
        (
            "Label conflicts",
            str(len(document["label_conflicts"])),
            "pairs of images that show the same, not of one class",
        ),
        ("Left out", str(len(document["faults"])), "files that no stage uses"),
    ]
    return cards(rows)


def _alarm(leaks: Sequence[Mapping[str, Any]], manifest: Manifest) -> str:
    if not leaks:
        return ""
    note = "Scores will be too good: what is scored was learnt. Remove one image of each pair."
    heading = f"Leakage: {count(len(leaks), 'pair')} of images across splits"
    return f'<div class="alarm">{_section(heading, note, leaks, manifest)}</div>'


def _hints(warnings: Sequence[str]) -> str:
    lines = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<div class="hint"><ul>{lines}</ul></div>' if lines else ""


def _counts(document: Mapping[str, Any]) -> str:
    classes = [escape(words(name)) for name in document["classes"]]
    head = ["", "images", "masks", "labels", *classes, "size, median", "megabytes", "masks at the border"]
    rows = []
    for split, held in document["splits"].items():
        if held["images"]:
            size, lesion = held["sizes"], held["lesion"]
            rows.append(
                [
                    split,
                    *(str(held[key]) for key in ("images", "masks", "labels")),
                    *(str(number) for number in held["classes"].values()),
                    f"{size['width']['median']:g} × {size['height']['median']:g}",
                    f"{held['encoded_bytes'] / 1e6:.1f}",
                    _NONE if lesion is None else str(lesion["touching_border"]),
                ]
            )
    return f'<div class="box counts">{table(head, rows)}</div>'


def _colours(document: Mapping[str, Any]) -> str:
    rows = [
        [split, *(", ".join(f"{value:.3f}" for value in held["colour"][key]) for key in ("mean", "std"))]
        for split, held in document["splits"].items()
        if held["colour"]
    ]
    content = table(["", "mean of red, green, blue", "deviation"], rows)
    note = (
        "In [0, 1]; the training split's serve as <code>preprocessing.mean</code> and <code>preprocessing.std</code>."
    )
    return f'<div class="box"><h3>Colour in figures</h3>{content}<p class="note">{note}</p></div>'


def _section(heading: str, note: str, pairs: Sequence[Mapping[str, Any]], manifest: Manifest) -> str:
    if not pairs:
        return ""
    drawn = "".join(_pair(pair, manifest) for pair in pairs[:_SHOWN])
    more = _more(len(pairs) - _SHOWN)
    return f'<section><h2>{heading}</h2><p class="note">{note}</p><div class="alike">{drawn}</div>{more}</section>'


def _pair(pair: Mapping[str, Any], manifest: Manifest) -> str:
    first, second = pair["images"]
    facts = [_RELATIONS[pair["relation"]]]
    if pair["likeness"] < 1:
        facts.append(f"likeness {pair['likeness']:.2f}")
    if pair["view"] != "as it is":
        facts.append(f"the right one {pair['view']}")
    if None not in (first["label"], second["label"]) and first["label"] != second["label"]:
        facts.append('<span class="bad">different labels</span>')
    header = "".join(f"<span>{fact}</span>" for fact in facts)
    figures = "".join(_figure(image, manifest) for image in (first, second))
    return f'<article class="case"><header>{header}</header><div class="twins">{figures}</div></article>'


def _figure(image: Mapping[str, Any], manifest: Manifest) -> str:
    picture = Image.fromarray(decode_image(manifest.read(image["path"])))
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    label = "" if image["label"] is None else f", {escape(words(image['label']))}"
    path = escape(image["path"])
    caption = f"<b>{image['split']}</b>{label}<br>{path}"
    return f'<figure><img src="{source}" alt="{escape(image["image_id"])}"><figcaption>{caption}</figcaption></figure>'


def _faults(faults: Sequence[Mapping[str, str]]) -> str:
    if not faults:
        return ""
    rows = [[escape(fault["path"]), escape(fault["reason"])] for fault in faults[:_LISTED]]
    more = _more(len(faults) - _LISTED)
    content = table(["file", "why"], rows).replace("<table>", '<table class="files">', 1)
    return f'<h2>Left out</h2><div class="box">{content}{more}</div>'


def _more(left: int) -> str:
    """How many entries the document has that the page does not show."""
    return f'<p class="note">{left} more in <code>{FINGERPRINT}</code>.</p>' if left > 0 else ""
