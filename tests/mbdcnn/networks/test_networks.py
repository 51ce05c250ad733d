"""Shapes and parts of the three networks, and their initial weights."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from mbdcnn.config import NetworkConfig
from mbdcnn.errors import UserError
from mbdcnn.networks import (
    CoarseSN,
    EnhancedSN,
    MaskCN,
    MutualBootstrap,
    binarise,
    find_weights,
    guiding_mask,
    read_backbone,
)
from mbdcnn.presets import PRESETS, preset

SMOKE = preset("smoke").network


@pytest.mark.parametrize("name", PRESETS)
def test_the_chain_of_every_preset(name: str) -> None:
    config = preset(name)
    network, size = config.network, config.preprocessing.image_size
    chain = MutualBootstrap(CoarseSN(network), MaskCN(network), EnhancedSN(network)).eval()
    with torch.no_grad():
        prediction = chain(torch.randn(2, 3, size, size))
    deep = size // network.output_stride
    assert prediction.coarse_probability.shape == (2, 1, size, size)
    assert prediction.lesion_probability.shape == (2, 1, size, size)
    assert prediction.cam.shape == (2, 1, deep, deep)
    assert prediction.logits.shape == (2, 3)
    assert prediction.coarse_mask.unique().tolist() in ([0], [1], [0, 1])
    torch.testing.assert_close(prediction.probabilities.sum(1), torch.ones(2))
    for probability in (prediction.coarse_probability, prediction.lesion_probability):
        assert 0 <= probability.min() <= probability.max() <= 1


def test_the_guiding_mask_is_the_mask_but_for_a_ramp_at_the_cut() -> None:
    probability = torch.linspace(0, 1, 1001).reshape(1, 1, 7, 143)
    clear = (probability - 0.5).abs() > 0.0101
    torch.testing.assert_close(guiding_mask(probability)[clear], binarise(probability)[clear])
    jitter = guiding_mask(probability + 1e-6) - guiding_mask(probability)
    assert jitter.abs().max() < 1e-3  # no float's last bit decides a pixel


def test_every_parameter_of_the_chain_learns() -> None:
    coarse, mask, enhanced = CoarseSN(SMOKE), MaskCN(SMOKE), EnhancedSN(SMOKE)
    images = torch.randn(2, 3, 64, 64)
    logits, _ = mask(images, torch.ones(2, 1, 64, 64))
    (coarse(images).sum() + logits.square().sum() + enhanced(images, torch.rand(2, 1, 4, 4)).sum()).backward()
    for network in (coarse, mask, enhanced):
        assert [name for name, p in network.named_parameters() if p.grad is None] == []


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


def test_enhanced_starts_as_coarse_and_its_e_layer_passes_features() -> None:
    coarse, enhanced = CoarseSN(SMOKE).eval(), EnhancedSN(SMOKE).eval()
    report = enhanced.start_from(coarse)
    assert report.loaded == len(coarse.state_dict())
    features = torch.rand(1, enhanced.encoder.out_channels[-1], 4, 4)
    passed = enhanced.e_layer(features, torch.rand(1, 1, 4, 4))
    torch.testing.assert_close(passed, features, rtol=1e-4, atol=1e-4)


def test_the_e_layer_resizes_the_map() -> None:
    enhanced = EnhancedSN(SMOKE).eval()
    with torch.no_grad():
        assert enhanced(torch.randn(1, 3, 64, 64), torch.rand(1, 1, 7, 7)).shape == (1, 1, 64, 64)


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
    assert report.loaded > 50
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
    with pytest.raises(UserError, match=r"there is no file absent\.pth"):
        find_weights("resnet10t", "absent.pth")


@pytest.mark.parametrize("network", [CoarseSN, MaskCN])
def test_unknown_and_unfit_encoders_are_named(network: type[CoarseSN] | type[MaskCN]) -> None:
    with pytest.raises(UserError, match=r"no encoder resnet35; near ones are resnet"):
        network(NetworkConfig("resnet35", "resnet35"))
    with pytest.raises(UserError, match="vit_tiny_patch16_224 cannot be"):
        network(NetworkConfig("vit_tiny_patch16_224", "vit_tiny_patch16_224"))
