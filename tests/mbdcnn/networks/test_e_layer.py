"""Enhanced-SN with its E-layer in each place."""

from dataclasses import replace

import pytest
import torch

from mbdcnn.config import E_LAYER_PLACES
from mbdcnn.networks import CoarseSN, EnhancedSN
from mbdcnn.presets import preset

SMOKE = preset("smoke").network
NEW = {"encoder": 5, "aspp": 5, "decoder": 5, "none": 0}  # a convolution's weight and four tensors of a batch norm


def enhanced_at(place: str) -> EnhancedSN:
    return EnhancedSN(replace(SMOKE, e_layer=place))


@pytest.mark.parametrize("place", E_LAYER_PLACES)
def test_enhanced_starts_as_coarse(place: str) -> None:
    coarse, enhanced = CoarseSN(SMOKE), enhanced_at(place)
    report = enhanced.start_from(coarse)
    state = coarse.state_dict()
    assert (report.loaded, report.adapted, report.new) == (sum("num_batches" not in k for k in state), 0, NEW[place])
    assert report.new_parts == (() if place == "none" else ("e_layer",))
    own = enhanced.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())
    assert {name.partition(".")[0] for name in own.keys() - state.keys()} == set(report.new_parts)


@pytest.mark.parametrize("place", ["aspp", "none"])  # there nothing negative is lost
def test_enhanced_starts_with_what_coarse_says(place: str) -> None:
    coarse, enhanced = CoarseSN(SMOKE).eval(), enhanced_at(place).eval()
    enhanced.start_from(coarse)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(enhanced(images, torch.rand(2, 1, 4, 4)), coarse(images), rtol=1e-4, atol=1e-4)


def test_the_e_layer_starts_by_passing_features() -> None:
    enhanced = enhanced_at("encoder").eval()
    features = torch.rand(1, enhanced.encoder.out_channels[-1], 4, 4)
    passed = enhanced.e_layer(features, torch.rand(1, 1, 4, 4))
    torch.testing.assert_close(passed, features, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", E_LAYER_PLACES)
def test_every_parameter_learns_or_is_frozen(place: str) -> None:
    enhanced = enhanced_at(place)
    enhanced(torch.randn(2, 3, 64, 64), torch.rand(2, 1, 4, 4)).sum().backward()
    assert [name for name, p in enhanced.named_parameters() if (p.grad is None) == p.requires_grad] == []
    frozen = {name for name, p in enhanced.named_parameters() if not p.requires_grad}
    # in the decoder's place, the stages behind the shallow features, which the decoder still sees, are not looked at
    deep = {
        name
        for name, _ in enhanced.named_parameters()
        if name.startswith(tuple(f"encoder.model.layer{i}" for i in "234"))
    }
    assert frozen == (deep if place == "decoder" else set())


@pytest.mark.parametrize(
    ("place", "sensitive"), [("encoder", True), ("aspp", True), ("decoder", True), ("none", False)]
)
def test_the_map_is_looked_at_and_resized(place: str, sensitive: bool) -> None:
    enhanced = enhanced_at(place)
    images, cam = torch.randn(2, 3, 64, 64), torch.rand(2, 1, 7, 7, requires_grad=True)
    probability = enhanced(images, cam)
    assert probability.shape == (2, 1, 64, 64)
    if place != "none":
        torch.nn.init.normal_(enhanced.e_layer.conv.weight)  # it starts by ignoring the map
        probability = enhanced(images, cam)
    (gradient,) = torch.autograd.grad(probability.sum(), cam, allow_unused=True)
    assert (gradient is not None and gradient.abs().sum() > 0) == sensitive


def test_the_bridge_sees_no_deep_features() -> None:
    enhanced = enhanced_at("decoder").eval()
    cam, width = torch.rand(1, 1, 4, 4), enhanced.encoder.out_channels[-1]
    assert torch.equal(
        enhanced.e_layer(torch.zeros(1, width, 4, 4), cam), enhanced.e_layer(torch.ones(1, width, 4, 4), cam)
    )


def test_enhanced_without_coarse_starts_from_its_encoder() -> None:
    enhanced = enhanced_at("encoder")
    report = enhanced.load_pretrained(CoarseSN(SMOKE).encoder.model.state_dict())
    assert report.new_parts == ("decoder", "head", "e_layer")
    assert report.loaded + report.new == sum("num_batches" not in k for k in enhanced.state_dict())
