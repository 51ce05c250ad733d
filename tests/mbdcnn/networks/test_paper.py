"""The paper's own networks."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from mbdcnn.config import NetworkConfig
from mbdcnn.errors import UserError
from mbdcnn.networks import MaskCN, find_weights, read_backbone
from mbdcnn.presets import preset

PAPER = preset("paper").network


@pytest.fixture(scope="module")
def stock() -> dict[str, torch.Tensor]:
    state = timm.create_model("legacy_xception").state_dict()
    return {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in state.items()}


def test_every_imagenet_tensor_but_the_classifier_fills_mask_cn(tmp_path: Path, stock: dict[str, torch.Tensor]) -> None:
    save_file(stock, tmp_path / "legacy_xception.safetensors")
    network = MaskCN(PAPER)
    state = read_backbone("legacy_xception", find_weights("legacy_xception", str(tmp_path)))
    assert state is not None
    assert set(state) == {k for k in stock if not k.startswith("fc.") and not k.endswith("num_batches_tracked")}
    report = network.load_pretrained(state)
    assert (report.loaded, report.adapted, report.new) == (len(state) - 1, 1, 2)
    assert report.new_parts == ("classifier",)
    own = network.backbone.state_dict()
    assert {k for k in own if not k.endswith("num_batches_tracked")} == set(state)
    stem = own.pop("conv1.weight")
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items() if name != "conv1.weight")
    assert torch.equal(stem[:, :3], state["conv1.weight"])
    torch.testing.assert_close(stem[:, 3], state["conv1.weight"].mean(1))


def test_a_checkpoint_without_a_tensor_of_the_exit_flow_is_refused(
    tmp_path: Path, stock: dict[str, torch.Tensor]
) -> None:
    save_file({k: v for k, v in stock.items() if k != "conv4.conv1.weight"}, tmp_path / "legacy_xception.safetensors")
    with pytest.raises(UserError, match=r"1 of 234 tensors are missing, the first are conv4\.conv1\.weight"):
        read_backbone("legacy_xception", str(tmp_path / "legacy_xception.safetensors"))


def test_only_the_last_pooling_and_the_last_dilations_differ_from_the_stock_model() -> None:
    ours, theirs = MaskCN(replace(PAPER, mask_channel=False)).backbone, timm.create_model("legacy_xception")

    def layers(model: nn.Module) -> dict[str, str]:
        return {k: str(m) for k, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d)}

    own, stock = layers(ours), layers(theirs)
    assert set(stock) - set(own) == {"block12.rep.6"}
    assert isinstance(theirs.block12.rep[6], nn.MaxPool2d)
    changed = {k for k in own if own[k] != stock[k]}
    assert changed == {"block12.skip", "conv3.conv1", "conv4.conv1"}
    assert ours.block12.skip.stride == (1, 1)
    for layer in (ours.conv3.conv1, ours.conv4.conv1):
        assert layer.dilation == layer.padding == (2, 2)


def test_mask_cn_gives_2048_maps_of_14_x_14() -> None:
    network = MaskCN(PAPER).eval()
    with torch.no_grad():
        logits, features = network(torch.randn(1, 3, 224, 224), torch.ones(1, 1, 224, 224))
    assert features.shape == (1, 2048, 14, 14)
    torch.testing.assert_close(logits, network.classifier(features.mean((2, 3))))


def test_mask_cn_has_one_output_stride() -> None:
    with pytest.raises(UserError, match=r"set network\.output_stride=16"):
        MaskCN(NetworkConfig("xception65", "legacy_xception", output_stride=8))


@pytest.mark.parametrize("encoder", ["xception65", "legacy_xception"])
def test_images_are_normalised_as_the_imagenet_weights_want(encoder: str) -> None:
    spec, trained = preset("paper").preprocessing, timm.get_pretrained_cfg(encoder)
    assert (spec.mean, spec.std) == (trained.mean, trained.std)
