"""What a model card says of the training: what came of each stage, and the settings that count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from serve._card_results import NONE, markdown

Settings = Mapping[str, Any]


def training(provenance: Mapping[str, Any]) -> str:
    """Tables of the stages and of their main settings (as far as the export knew them), and what made them.

    Args:
        provenance: of the manifest (`mbdcnn.runs.provenance`).
    """
    stages = provenance.get("stages", {})
    settings = {stage: made["settings"] for stage, made in stages.items() if "settings" in made}
    parts = [_outcomes(stages), *_adopted(stages), *_averages(stages), *(_main(settings) if settings else [])]
    parts.append(f"Code: {provenance.get('code_version', 'unknown')}; run: {provenance['run']}.")
    return "\n\n".join(parts)


def _outcomes(stages: Mapping[str, Any]) -> str:
    lines = [
        [
            stage,
            _epochs(made),
            ", ".join(f"{k} {v:.3f}" for k, v in made["best"].items()),
            f"{made['seconds'] / 60:.0f} min" if "seconds" in made else NONE,
            ", ".join(f"{k} from {v}" for k, v in made.get("pretrained", {}).items() if v != "none") or NONE,
        ]
        for stage, made in stages.items()
    ]
    return markdown(["stage", "epochs", "best on validation", "time", "pretrained weights"], lines)


def _epochs(made: Mapping[str, Any]) -> str:
    if "averaged" in made:
        return f"{made['epochs']}, of {len(made['averaged'])} trainings together"
    return f"{made.get('epochs', NONE)} (best: {made.get('best_epoch', NONE)})"


def _adopted(stages: Mapping[str, Any]) -> list[str]:
    """For each stage that was taken over as it was, a sentence on where from."""
    return [
        f"Stage {stage} is that of version {made['adopted']['version']} of the repository of run "
        f"{made['adopted']['run']} (`mbdcnn adopt`)."
        for stage, made in stages.items()
        if "adopted" in made
    ]


def _averages(stages: Mapping[str, Any]) -> list[str]:
    """For each stage that is a mean of several trainings' weights, a sentence on them."""
    said = []
    for stage, made in stages.items():
        sources = [_source(source, made["score"]) for source in made.get("averaged", ())]
        if sources:
            said.append(
                f"Of stage {stage} the weights are the mean of those of {len(sources)} trainings (`mbdcnn average`): "
                f"{'; '.join(sources)}. The table has the first one's settings."
            )
    return said


def _source(source: Mapping[str, Any], score: str) -> str:
    others = ", ".join(f"{name} {value}" for name, value in source["other_settings"].items())
    return f"{source['run']} ({score} {source['best'][score]:.3f}{f'; {others}' if others else ''})"


def _main(settings: Mapping[str, Settings]) -> list[str]:
    lines = [[name, *(say(found, stage) for stage, found in settings.items())] for name, say in _ROWS.items()]
    augmented = {stage: _augmentation(found) for stage, found in settings.items()}
    if len(set(augmented.values())) == 1:
        augmented = {"all stages": augmented.popitem()[1]}
    return [
        markdown(["setting", *settings], lines),
        f"Augmentation, {'; '.join(f'{stage}: {said}' for stage, said in augmented.items())}. Every setting of each "
        "stage: `provenance` in `manifest.json`.",
    ]


def _encoder(settings: Settings, stage: str) -> str:
    return str(settings[f"network.{'classification' if stage == 'mask' else 'segmentation'}_encoder"])


def _input(settings: Settings, _: str) -> str:
    side = settings["preprocessing.image_size"]
    return f"{side} x {side}"


def _rate(settings: Settings, stage: str) -> str:
    warm = settings["engine.warmup_steps"]
    rise = f", {warm} steps of warm-up" if warm else ""
    return f"{settings[f'{stage}.learning_rate']:g}, {settings[f'{stage}.schedule']}{rise}"


def _loss(settings: Settings, stage: str) -> str:
    if stage == "mask":
        smoothing = settings.get("mask.label_smoothing")
        said = "cross-entropy" + (f", labels smoothed by {smoothing:g}" if smoothing else "")
    else:
        weight, top_k, margin = (settings[f"loss.{name}"] for name in ("lambda_rank", "top_k", "margin"))
        said = f"Dice + {weight:g} rank (K {top_k}, margin {margin:g})" if weight else "Dice"
    return said + (", classes drawn equally often" if settings[f"{stage}.balanced"] else "")


def _depth(settings: Settings, _: str) -> str:
    return f"{settings['network.drop_path']:g}" if settings.get("network.drop_path") else "off"


def _engine(name: str) -> Callable[[Settings, str], str]:
    return lambda settings, _: f"{settings[f'engine.{name}']:g}" if settings[f"engine.{name}"] else "off"


_ROWS: dict[str, Callable[[Settings, str], str]] = {
    "preset": lambda settings, _: str(settings["preset"]),
    "fine-tuned from run": lambda settings, _: settings.get("bootstrap.start_run") or NONE,
    "encoder": _encoder,
    "input, pixels": _input,
    "epochs, at most": lambda settings, stage: str(settings[f"{stage}.epochs"]),
    "patience, epochs": lambda settings, stage: str(settings[f"{stage}.patience"]),
    "images a step": lambda settings, stage: str(settings[f"{stage}.batch_size"]),
    "learning rate": _rate,
    "loss": _loss,
    "stochastic depth": _depth,
    "weight decay": _engine("weight_decay"),
    "largest norm of the gradient": _engine("clip_norm"),
    "EMA of the weights": _engine("ema_decay"),
    "seed": lambda settings, _: str(settings["seed"]),
}


def _augmentation(settings: Settings) -> str:
    found = {name.removeprefix("augmentation."): v for name, v in settings.items() if name.startswith("augmentation.")}
    return (
        "central crop of {crop_min:g} to 1 of each side (probability {crop_probability:g}), rotation to "
        "{rotation_deg:g} degrees, shear to {shear_rad:g} rad, shift to {shift_px:g} pixels, zoom {zoom_min:g} to "
        "{zoom_max:g}, flips with probability {horizontal_flip:g} (horizontal) and {vertical_flip:g} (vertical), "
        "brightness, contrast, saturation and hue by up to {brightness:.0%}, {contrast:.0%}, {saturation:.0%} and "
        "{hue_deg:g} degrees"
    ).format(**found)
