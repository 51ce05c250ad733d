"""Any of timm's encoders that can be dilated serves all three networks; the others are refused when they are named."""

import pytest
import timm
import torch

from mbdcnn.config import NetworkConfig
from mbdcnn.errors import UserError
from mbdcnn.networks import CoarseSN, EnhancedSN, MaskCN
from mbdcnn.networks.encoders import ENCODERS

SMALL = (
    "regnetx_002",
    "tinynet_e",
    "mobilenetv3_small_050",  # can be dilated as a feature extractor only
    "convnext_atto",  # has a norm behind the pooling
    "repvgg_a0",  # has two first convolutions
    "resnest14d",
)
UNDILATABLE = ("densenet121", "vgg11", "hrnet_w18_small", "ghostnet_050", "swin_tiny_patch4_window7_224", "dla34")


def settings(encoder: str) -> NetworkConfig:
    return NetworkConfig(encoder, encoder, decoder_channels=16)


@pytest.mark.parametrize("encoder", SMALL)
def test_small_encoders_serve_all_three_networks(encoder: str) -> None:
    networks = CoarseSN(settings(encoder)), MaskCN(settings(encoder)), EnhancedSN(settings(encoder))
    _every_parameter_learns_or_is_frozen(*networks)
    stock = {k: torch.randn_like(v) for k, v in timm.create_model(encoder).state_dict().items() if "num_ba" not in k}
    for network in networks:
        _every_tensor_is_accounted_for(network, stock)


def _every_parameter_learns_or_is_frozen(coarse: CoarseSN, mask: MaskCN, enhanced: EnhancedSN) -> None:
    images = torch.randn(2, 3, 64, 64)
    probability = coarse(images)
    logits, features = mask(images, torch.ones(2, 1, 64, 64))
    lesion = enhanced(images, torch.rand(2, 1, 4, 4))
    assert probability.shape == lesion.shape == (2, 1, 64, 64)
    assert logits.shape == (2, 3)
    assert features.shape == (2, mask.classifier.in_features, 4, 4)
    (probability.sum() + lesion.sum() + logits.square().sum()).backward()
    for network in (coarse, mask, enhanced):
        assert [k for k, p in network.named_parameters() if (p.grad is None) == p.requires_grad] == []
        frozen = {k for k, p in network.named_parameters() if not p.requires_grad}
        assert frozen <= {"backbone.head.norm.weight", "backbone.head.norm.bias"}


def _every_tensor_is_accounted_for(network: CoarseSN | MaskCN, stock: dict[str, torch.Tensor]) -> None:
    report = network.load_pretrained(stock)
    own = {k: v for k, v in network.state_dict().items() if "num_ba" not in k}
    pretrained = {k: v for k, v in own.items() if k.startswith(("encoder.", "backbone."))}
    assert report.loaded + report.adapted == len(pretrained)
    assert report.new == len(own) - len(pretrained)
    assert (report.adapted > 0) == isinstance(network, MaskCN)
    sums = {v.sum().item() for v in stock.values()}
    assert sum(v.sum().item() not in sums for v in pretrained.values()) == report.adapted


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("network", [CoarseSN, MaskCN])
def test_the_encoders_that_errors_name_can_be_built(network: type[CoarseSN] | type[MaskCN], encoder: str) -> None:
    with torch.device("meta"):
        network(settings(encoder))


@pytest.mark.parametrize("network", [CoarseSN, MaskCN])
@pytest.mark.parametrize("encoder", UNDILATABLE)
def test_undilatable_encoders_are_refused_with_those_that_fit(
    network: type[CoarseSN] | type[MaskCN], encoder: str
) -> None:
    with pytest.raises(
        UserError, match=f"{encoder} cannot be .* at output stride 16 .timm cannot dilate it."
    ) as raised:
        network(settings(encoder))
    assert all(name in str(raised.value) for name in ENCODERS)


@pytest.mark.parametrize("network", [CoarseSN, MaskCN])
def test_unknown_encoders_are_refused_with_near_names(network: type[CoarseSN] | type[MaskCN]) -> None:
    with pytest.raises(UserError, match=r"no encoder resnet35; near ones are resnet"):
        network(settings("resnet35"))
    with pytest.raises(UserError, match=r"no encoder @; near ones are resnet34, "):
        network(settings("@"))


def test_transformers_are_refused() -> None:
    with pytest.raises(UserError, match="vit_tiny_patch16_224 cannot be the segmentation encoder"):
        CoarseSN(settings("vit_tiny_patch16_224"))
    with pytest.raises(UserError, match="vit_tiny_patch16_224 cannot be mask-CN's backbone"):
        MaskCN(settings("vit_tiny_patch16_224"))


def test_a_trial_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    CoarseSN(settings("resnet10t"))
    drawn = torch.rand(1)
    torch.manual_seed(0)
    torch.manual_seed(0)
    import segmentation_models_pytorch as smp

    smp.DeepLabV3Plus("tu-resnet10t", encoder_weights=None, decoder_channels=16)
    assert torch.equal(torch.rand(1), drawn)
