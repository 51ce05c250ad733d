"""Settings: overrides by dotted name, YAML, what is refused."""

from pathlib import Path

import pytest

from mbdcnn import config as configuration
from mbdcnn.config import Config, NetworkConfig, override
from mbdcnn.errors import UserError
from mbdcnn.presets import PRESETS, preset


def test_override_by_dotted_name() -> None:
    config = override(Config(), ["coarse.epochs=3", "loss.margin=0.4", "mask.balanced=true", "network.weights=a=b.pth"])
    assert config.coarse.epochs == 3
    assert config.loss.margin == 0.4
    assert config.mask.balanced is True
    assert config.network.weights == "a=b.pth"
    assert Config().coarse.epochs != 3


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("coarse.epoch=3", r"no field coarse\.epoch; did you mean coarse\.epochs\?"),
        ("margin=3", r"no field margin; did you mean loss\.margin\?"),
        ("loss=3", "no field loss"),
        ("coarse.epochs", "write field=value"),
        ("coarse.epochs=many", r"coarse\.epochs: Value 'many'"),
        ("coarse.epochs=0", r"coarse\.epochs is at least 1"),
        ("coarse.schedule=linear", r"coarse\.schedule is one of constant, poly"),
        ("preprocessing.image_size=100", r"preprocessing\.image_size is a multiple of 16"),
        ("precision=half", "precision is one of"),
        ("network.drop_path=1", "drop_path is at least 0 and below 1"),
        ("mask.label_smoothing=-0.1", r"mask\.label_smoothing is at least 0 and below 1"),
        ("seed=-1", "seed is at least 0"),
        ("augmentation.vertical_flip=2", "between 0 and 1"),
        ("coarse.epochs={", r"coarse\.epochs=\{: "),
        ("preprocessing.mean=[1,2]", r"preprocessing\.mean"),
    ],
)
def test_what_is_refused_and_how(assignment: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        override(Config(), [assignment])


@pytest.mark.parametrize("name", PRESETS)
def test_yaml_keeps_every_field(tmp_path: Path, name: str) -> None:
    config = override(preset(name), ["seed=5"])
    configuration.save(config, tmp_path / "config.yaml")
    assert configuration.load(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("text", ["coarse: {epoch: 3}", "coarse: {", "- a\n- b", "", "\tseed: 1"])
def test_an_unusable_yaml_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml is not a usable configuration"):
        configuration.load(path)


def test_differences_are_dotted_names() -> None:
    changed = override(Config(), ["seed=1", "enhanced.learning_rate=1"])
    assert configuration.differences(Config(), changed) == ["seed", "enhanced.learning_rate"]


def test_unknown_preset_suggests_the_near_one() -> None:
    with pytest.raises(UserError, match=r"no preset compac; did you mean compact\?"):
        preset("compac")


CLASS_NAMES = (
    "true", "null", "~", "no", "1", "1.0", "1e5", "0x1F", "1_000", "1:30", "2017-01-01", ".inf", "=", "<<",
    "a: b", "- x", "# x", "'q'", '"', "a,b", "[x]", "{x}", "*a", "&a", "!tag", "%", "@", "`", "|", ">", "a\\b", "$x",
    "Größe", "病変", "🙂", "two words",
)  # fmt: skip


def test_classes_of_any_name_survive_the_file(tmp_path: Path) -> None:
    config = Config(network=NetworkConfig(classes=CLASS_NAMES))
    configuration.save(config, tmp_path / "config.yaml")
    assert configuration.load(tmp_path / "config.yaml") == config


def test_settings_of_before_there_were_other_classes(tmp_path: Path) -> None:
    configuration.save(Config(), tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    start, end = text.index("  classes:"), text.index("loss:")
    (tmp_path / "config.yaml").write_text(text[:start] + text[end:])
    assert configuration.load(tmp_path / "config.yaml") == Config()


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        ("[]", "names each class once"),
        ("[a,b,a]", "names each class once"),
        ("[a,mean_AUC]", "'mean_AUC' has another meaning in the results or settings"),
        ("[a,'']", "'' has not 1 to 100 characters"),
    ],
)
def test_classes_that_are_refused(classes: str, sentence: str) -> None:
    with pytest.raises(UserError, match=f"network.classes.*{sentence}"):
        override(Config(), [f"network.classes={classes}"])
