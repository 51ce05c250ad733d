"""Evaluation: every image of a split through the networks, scored per image at its mask's native size.

Images that are decoded and masks that are scored live only inside a worker thread, so that memory holds a
few full-size images (they may have 30 million pixels) whatever the batch size and the split's length;
between the threads travel network-sized arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mbdcnn.classes import CLASSES
from mbdcnn.config import STAGES
from mbdcnn.data.decoded import decoded
from mbdcnn.errors import UserError
from mbdcnn.metrics import SegmentationScores, score_mask
from mbdcnn.networks import place
from mbdcnn.preprocessing import MASK_THRESHOLD, Preprocessing, decode_image, decode_mask
from mbdcnn.runs import LOG, METRICS, write_json
from train._allocator import keep_memory
from train._report_cases import Case, choose
from train._report_rows import Row, summarise, write_csv
from train._subgroups import subgroups
from train._traits import reduced, traits_of
from train._trust import trust
from train.protocols import Answer, Authors, Lesion, Predict, Single, protocol_named
from train.report import write_report

if TYPE_CHECKING:
    from mbdcnn.config import Config
    from mbdcnn.data.manifest import Item, Manifest
    from mbdcnn.networks import MutualBootstrap

_DECODERS = min(4, cpu_count() or 1)  # each holds one image: up to 0.5 GB at 30 million pixels


def evaluate(
    predict: Predict,
    manifest: Manifest,
    split: str,
    out: Path,
    preprocessing: Preprocessing,
    batch_size: int = 16,
    progress: bool = False,
    *,
    title: str = "",
    logs: Sequence[Path] = (),
    protocol: str = "single",
    classes: tuple[str, ...] = CLASSES,
) -> dict[str, Any]:
    """Score a split and write what was found.

    Each image is squashed to the network's size, seen once or in many views (`train.protocols`). Probability
    maps go back to the truth's size before they are cut at `MASK_THRESHOLD`. Images without a mask count for
    classification only, images without a label for segmentation only; a network that is not there is not scored.

    Args:
        predict: takes normalised images `(B, 3, S, S)` float32 and answers with a `Prediction`; a
            `MutualBootstrap` for the protocol `authors`. A module is switched to evaluation mode meanwhile, and
            gets the images on its own device.
        manifest: the data set's index.
        split: `training`, `validation` or `test`.
        out: folder to write into, made where missing: `metrics.json`, `per_image.csv` and `report.html`.
        preprocessing: how the networks expect their input.
        batch_size: images, or views of images, per call of a network, 1 or more.
        progress: show a progress bar on standard error.
        title: of the report, such as the run's name.
        logs: training logs (JSON lines) whose curves the report shows; missing files are passed over.
        protocol: `single` or `authors`.
        classes: that the networks tell apart; an image with another label counts for segmentation only.

    Returns:
        The document of `mbdcnn evaluate --json` (see `summarise`), also in `metrics.json`.

    Raises:
        UserError: no such protocol, the split has no images, a file is gone or cannot be decoded, or an
            answer is not finite.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be 1 or more, not {batch_size}.")
    items = split_items(manifest, split)
    rows: list[Row] = []
    with (
        _evaluation_mode(predict) as device,
        decoders() as pool,
        tqdm(total=len(items), desc=f"evaluate {split}", unit="image", disable=not progress) as bar,
    ):
        asked = protocol_named(protocol, predict, preprocessing, batch_size, device)
        for batch, answers, pictures in _answers(pool, manifest, items, asked):
            for row in pool.map(partial(_score, manifest, classes), batch, answers, pictures):
                rows.append(row)
                bar.update()
        result = {
            **summarise(rows, protocol=protocol, split=split),
            "trust": trust(rows),
            "subgroups": subgroups(rows),
            "data": {"name": manifest.root.resolve().name, "fingerprint": manifest.fingerprint},
        }
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / METRICS, result)
        write_csv(rows, out / "per_image.csv")
        # The few images that the report shows are asked again: keeping every image's maps until the best
        # and the worst are known would cost memory that grows with the split.
        chosen = choose(rows)
        by_id = {item.image_id: item for item in items}
        shown = [by_id[image_id] for image_id in dict.fromkeys(chain.from_iterable(chosen.values()))]
        cases: dict[str, Case] = {}
        for batch, answers, _ in _answers(pool, manifest, shown, asked):
            for case in pool.map(_picture, [manifest] * len(batch), batch, answers):
                cases[case.image_id] = case
    galleries = {name: [cases[image_id] for image_id in ids] for name, ids in chosen.items()}
    write_report(
        out / "report.html",
        result,
        rows,
        galleries,
        title=title,
        fingerprint=manifest.fingerprint,
        logs=logs,
    )
    return result


def evaluate_run(
    run: Path,
    loaded: tuple[MutualBootstrap, Config],
    manifest: Manifest,
    split: str,
    out: Path,
    protocol: str,
    progress: bool,
) -> dict[str, Any]:
    """`evaluate` for what `load_finished` gave of a run folder, on the GPU if there is one."""
    keep_memory()
    networks, config = loaded
    return evaluate(
        place(networks, "cuda" if torch.cuda.is_available() else "cpu"),
        manifest,
        split,
        out,
        config.preprocessing,
        progress=progress,
        title=heading(run.resolve().name, manifest, split),
        logs=[run / stage / LOG for stage in STAGES],
        protocol=protocol,
        classes=config.network.classes,
    )


def heading(what: str, manifest: Manifest, split: str) -> str:
    """The report's title: what was scored, on which data."""
    return f"{what} on {manifest.root.resolve().name}, {split}"


def split_items(manifest: Manifest, split: str) -> tuple[Item, ...]:
    """The split's images, after checking that there are any and that no file has gone since the index."""
    items = manifest.select(split)
    if not items:
        held = sorted({item.split for item in manifest.items})
        instead = f"; it has {' and '.join(held)}" if held else ""
        raise UserError(f"{manifest.root} has no images of the split '{split}'{instead}.")
    for item in items:
        for path in (item.image, item.mask):
            if path is not None and not (manifest.root / path).is_file():
                raise UserError(f"{manifest.root / path} is gone; run `mbdcnn data index` again.")
    return items


@contextmanager
def _evaluation_mode(predict: Predict) -> Iterator[torch.device]:
    """Make a module answer the same whatever shares its batch; yields the device it wants images on."""
    if not isinstance(predict, nn.Module):
        yield torch.device("cpu")
        return
    first = next(predict.parameters(), None)
    modes = [(module, module.training) for module in predict.modules()]  # a part may be frozen in another mode
    predict.eval()
    try:
        yield torch.device("cpu") if first is None else first.device
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def decoders() -> Iterator[ThreadPoolExecutor]:
    """Threads that decode and score; after an error or Ctrl-C they finish the image at hand and no more."""
    pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="evaluate")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _answers(
    pool: ThreadPoolExecutor, manifest: Manifest, items: Sequence[Item], protocol: Single | Authors
) -> Iterator[tuple[Sequence[Item], list[Answer], Sequence[np.ndarray]]]:
    """The networks' answers, batch by batch, and the pictures, reduced; meanwhile the next batch is being decoded."""

    def load(item: Item) -> tuple[np.ndarray, ...]:
        image = decoded(decode_image, manifest, item.image)
        return reduced(image), *protocol.load(image)

    groups = [items[start : start + protocol.images] for start in range(0, len(items), protocol.images)]
    ahead = [pool.submit(load, item) for item in groups[0]] if groups else []
    for position, group in enumerate(groups):
        pictures, *parts = zip(*(future.result() for future in ahead), strict=True)
        inputs: list[Tensor] = [torch.from_numpy(np.stack(part)) for part in parts]
        following = groups[position + 1] if position + 1 < len(groups) else ()
        ahead = [pool.submit(load, item) for item in following]
        yield group, protocol.ask(inputs, group), pictures


def _score(manifest: Manifest, classes: tuple[str, ...], item: Item, answer: Answer, picture: np.ndarray) -> Row:
    coarse = enhanced = share = None
    found = answer.enhanced or answer.coarse
    lesion = None if found is None else found(*picture.shape[:2]) > MASK_THRESHOLD
    if item.mask is not None:
        truth = lesion = decoded(decode_mask, manifest, item.mask)
        coarse, enhanced, share = _compare(answer.coarse, truth), _compare(answer.enhanced, truth), float(truth.mean())
    return Row(
        item.image_id,
        item.label,
        item.mask is not None,
        answer.probabilities,
        coarse,
        enhanced,
        classes,
        share,
        traits_of(picture, lesion),
        answer.mask_doubt,
        answer.unfamiliarity,
    )


def _compare(lesion: Lesion | None, truth: np.ndarray) -> SegmentationScores | None:
    return None if lesion is None else score_mask(lesion(*truth.shape) > MASK_THRESHOLD, truth)


def _picture(manifest: Manifest, item: Item, answer: Answer) -> Case:
    image = decoded(decode_image, manifest, item.image)
    truth = None if item.mask is None else decoded(decode_mask, manifest, item.mask)
    return Case.reduced(item.image_id, image, truth, answer.coarse, answer.enhanced, answer.cam)
