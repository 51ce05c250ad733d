"""Two and four views of an image against one, from bytes to mask, by ONNX Runtime on one core."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from _direct import Direct
from _measure import alternate, report
from _served import example_jpeg, untrained

from mbdcnn.networks import VIEWS
from serve.export import export_networks

GOALS = {f"{views}_views_over_one": f"<= {1.1 * views:g}" for views in VIEWS if views > 1}


def measure(quick: bool) -> dict[str, float]:
    """With `quick` a network of 5 M parameters at 96 x 96, otherwise `compact` at 224 x 224; random weights."""
    networks, preprocessing = untrained("smoke" if quick else "compact")
    chains: dict[str, Direct] = {}
    with tempfile.TemporaryDirectory() as folder:
        for views in VIEWS:
            networks.calibration.views = views
            repository = Path(folder, str(views))
            export_networks(networks, preprocessing, repository, {"run": "untrained"})
            chains[f"{views}_views"] = Direct(repository)
    images = [example_jpeg(i) for i in range(2 if quick else 8)]

    def ask_all(chain: Direct) -> None:
        for image in images:
            chain(image)

    seconds = alternate(3 if quick else 15, **{name: partial(ask_all, chain) for name, chain in chains.items()})
    return {f"{views}_views_over_one": seconds[f"{views}_views"] / seconds["1_views"] for views in VIEWS if views > 1}


if __name__ == "__main__":
    report("views", measure, GOALS)
