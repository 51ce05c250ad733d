"""What a stage is made from, and when two trainings are the same one."""

import pytest

from mbdcnn.config import STAGES, Config, flatten, override
from mbdcnn.lineage import is_read, lineage, must_fit, needs, stage_key
from mbdcnn.presets import preset

BASE = preset("smoke")


def key(stage: str, *settings: str, data: str = "data") -> str:
    return stage_key(override(BASE, settings), stage, data)


@pytest.mark.parametrize(
    ("settings", "stage", "expected"),
    [
        ([], "coarse", ("coarse",)),
        ([], "mask", ("coarse", "mask")),
        ([], "enhanced", STAGES),
        (["network.mask_channel=false"], "mask", ("mask",)),
        (["network.mask_channel=false", "bootstrap.coarse_start=false"], "enhanced", ("mask", "enhanced")),
        (["network.e_layer=none"], "enhanced", ("coarse", "enhanced")),
        (["network.e_layer=none", "bootstrap.proxy_labels=true"], "enhanced", STAGES),
    ],
)
def test_a_stage_brings_all_that_it_learns_from(settings: list[str], stage: str, expected: tuple[str, ...]) -> None:
    config = override(BASE, settings)
    assert lineage(config, stage) == expected
    assert set(needs(config, stage)) <= set(expected) - {stage}


def test_every_setting_but_names_rounds_and_how_the_work_is_done_is_read_by_some_stage() -> None:
    unread = [name for name in flatten(Config()) if not any(is_read(name, stage) for stage in STAGES)]
    assert unread == [
        "preset",
        "bootstrap.rounds",
        "engine.strategy",
        "engine.zero_stage",
        "engine.activation_checkpointing",
        "engine.compile",
        "engine.checkpoint_minutes",
        "engine.keep_checkpoints",
    ]


def test_the_same_training_has_the_same_key_whatever_later_stages_do() -> None:
    assert key("coarse") == key("coarse", "mask.epochs=3", "enhanced.learning_rate=1", "network.e_layer=aspp")
    assert key("mask") == key("mask", "enhanced.epochs=9", "bootstrap.coarse_start=false")
    assert key("mask", "network.mask_channel=false") == key("mask", "network.mask_channel=false", "coarse.epochs=3")


@pytest.mark.parametrize("setting", ["seed=1", "coarse.epochs=3", "loss.margin=0.1", "supervision.pixel_labels=9"])
def test_what_coarse_reads_renames_all_that_follows(setting: str) -> None:
    for stage in STAGES:
        assert key(stage) != key(stage, setting)


def test_classes_count_for_mask_cn_and_what_follows_unless_they_are_the_challenges() -> None:
    two = "network.classes=[benign,malignant]"
    assert key("coarse") == key("coarse", two)
    assert key("mask") == key("mask", "network.classes=[nevus,melanoma,seborrheic_keratosis]") != key("mask", two)
    assert key("enhanced") != key("enhanced", two)
    assert key("mask", two) != key("mask", "network.classes=[malignant,benign]")
    assert must_fit("network.classes", "mask")
    assert must_fit("network.classes", "enhanced")
    assert not must_fit("network.classes", "coarse")


def test_keys_of_what_is_trained_already_stay() -> None:
    """Shelves of version 0.1 bear these names."""
    config = override(Config(), ["coarse.epochs=3", "network.e_layer=aspp"])
    found = [stage_key(config, stage, "data") for stage in STAGES]
    assert found == ["5d39d147ae0b2620", "90ecacc424a3c7de", "67335540b32624d5"]


def test_another_data_set_is_another_training() -> None:
    assert key("coarse") != key("coarse", data="other")


def test_copies_instead_of_the_originals_rename_every_stage_and_each_other() -> None:
    for stage in STAGES:
        names = {stage_key(override(BASE, []), stage, "data", pixels) for pixels in ("", "256px-1", "512px-1")}
        assert len(names) == 3
        assert key(stage) in names


def test_what_others_build_on_must_have_the_same_networks_but_not_the_same_start() -> None:
    assert must_fit("network.segmentation_encoder", "coarse")
    assert must_fit("preprocessing.image_size", "mask")
    assert not must_fit("network.weights", "coarse")
    assert not must_fit("network.drop_path", "coarse")
    assert key("mask") != key("mask", "network.drop_path=0.1")
    assert not must_fit("coarse.epochs", "coarse")
    assert not must_fit("network.e_layer", "coarse")
