"""Initial weights: from a file, from a folder, from the hub without a network, and what is said of them."""

import time
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from mbdcnn.errors import UserError
from mbdcnn.networks import CoarseSN, MaskCN, find_weights, read_backbone
from mbdcnn.presets import preset

SMOKE = preset("smoke").network


def test_mask_channel_starts_as_the_mean_of_rgb() -> None:
    network = MaskCN(SMOKE)
    stock = timm.create_model(SMOKE.classification_encoder).state_dict()
    report = network.load_pretrained({k: v for k, v in stock.items() if not k.startswith("fc.")})
    stem = network.backbone.conv1[0].weight
    torch.testing.assert_close(stem[:, :3], stock["conv1.0.weight"])
    torch.testing.assert_close(stem[:, 3], stock["conv1.0.weight"].mean(1))
    assert report.adapted == 1
    assert report.new == 2  # the classifier's weight and bias


def test_random_mask_channel_is_the_mean_too() -> None:
    network = MaskCN(SMOKE)
    network.load_pretrained(None)
    stem = network.backbone.conv1[0].weight
    torch.testing.assert_close(stem[:, 3], stem[:, :3].mean(1))


def stock_file(folder: Path, drop: str = "", suffix: str = ".safetensors") -> Path:
    state = timm.create_model("resnet10t").state_dict()
    state = {k: v for k, v in state.items() if not drop or not k.startswith(drop)}
    path = folder / f"resnet10t{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_file_fills_the_encoder(tmp_path: Path, suffix: str) -> None:
    path = stock_file(tmp_path, suffix=suffix)
    state = read_backbone("resnet10t", str(path))
    network = CoarseSN(SMOKE)
    report = network.load_pretrained(state)
    assert report.loaded == len([k for k in state if not k.endswith("num_batches_tracked")])
    assert str(report) == f"{report.loaded} tensors loaded, 0 adapted, {report.new} new (decoder, head)"
    torch.testing.assert_close(network.encoder.model.state_dict()["conv1.0.weight"], state["conv1.0.weight"])


def test_weights_that_do_not_fit_name_the_first_missing_tensors(tmp_path: Path) -> None:
    path = stock_file(tmp_path, drop="layer2.")
    with pytest.raises(UserError, match=r"tensors are missing, the first are layer2\.0\.conv1\.weight"):
        read_backbone("resnet10t", str(path))


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = stock_file(tmp_path)
    with pytest.raises(UserError, match="does not fit resnet34"):
        read_backbone("resnet34", str(path))


def test_a_pickle_with_more_than_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet10t.pth"
    torch.save({"model": torch.nn.Linear(2, 2)}, path)
    with pytest.raises(UserError, match="more than tensors"):
        read_backbone("resnet10t", str(path))


def test_a_text_file_is_not_weights(tmp_path: Path) -> None:
    path = tmp_path / "resnet10t.safetensors"
    path.write_text("hello")
    with pytest.raises(UserError, match="not a readable weights file"):
        read_backbone("resnet10t", str(path))


def test_auto_finds_the_file_beside_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MBDCNN_WEIGHTS", raising=False)
    assert find_weights("resnet10t", "auto", [tmp_path / "absent"]) == "hub"
    path = stock_file(tmp_path)
    assert find_weights("resnet10t", "auto", [tmp_path]) == str(path)
    monkeypatch.setenv("MBDCNN_WEIGHTS", str(tmp_path))
    assert find_weights("resnet10t", "auto") == str(path)
    assert find_weights("resnet10t", "none", [tmp_path]) == "none"
    with pytest.raises(UserError, match=r"there is no file or folder absent\.pth"):
        find_weights("resnet10t", "absent.pth")


@pytest.mark.parametrize(
    ("encoder", "own", "foreign"),
    [
        ("xception65", "xception65.tf_in1k.pth", ("xception65p.pth", "legacy_xception.pth", "xception65.txt")),
        ("resnet50", "resnet50_a1_0-14fe96d1.pth", ("resnet50d.pth", "resnet50_gn_a1h2.pth", "resnet50_clip.pth")),
        ("tf_efficientnet_lite0", "tf_efficientnet_lite0_timm.pth", ("tf_efficientnet_lite01.pth",)),
    ],
)
def test_a_file_belongs_to_one_encoder(tmp_path: Path, encoder: str, own: str, foreign: tuple[str, ...]) -> None:
    for name in foreign:
        (tmp_path / name).touch()
    assert find_weights(encoder, "auto", [tmp_path]) == "hub"
    (tmp_path / own).touch()
    assert find_weights(encoder, "auto", [tmp_path]) == str(tmp_path / own)


def test_a_folder_of_weights_has_a_file_for_each_encoder(tmp_path: Path) -> None:
    (tmp_path / "xception65.safetensors").touch()
    assert find_weights("xception65", str(tmp_path)) == str(tmp_path / "xception65.safetensors")
    with pytest.raises(UserError, match=r"has no file for legacy_xception; put legacy_xception\.safetensors"):
        find_weights("legacy_xception", str(tmp_path))


def test_one_file_for_two_encoders_is_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not fit legacy_xception: .* a folder with a file named after each"):
        read_backbone("legacy_xception", str(stock_file(tmp_path)))


@pytest.mark.parametrize("encoder", ["resnet10t", "legacy_xception"])  # from the hub's client, and from a plain address
def test_without_a_network_the_error_comes_soon_and_says_where_a_file_goes(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, nowhere)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(UserError, match="could not be downloaded from https://") as raised:
        read_backbone(encoder, "hub")
    assert time.monotonic() - started < 20
    for place in (f"{encoder}.safetensors", "`weights` in or beside the data", "MBDCNN_WEIGHTS", "network.weights"):
        assert place in str(raised.value)
    assert "Retrying" not in caplog.text
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_an_encoder_without_published_weights_is_named() -> None:
    with pytest.raises(UserError, match="timm has no pretrained weights of efficientnet_b6; give a file"):
        read_backbone("efficientnet_b6", "hub")
