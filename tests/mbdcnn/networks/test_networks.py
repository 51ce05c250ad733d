"""The chain of the three networks."""

from dataclasses import replace

import pytest
import torch

from mbdcnn.doubt import Calibration
from mbdcnn.networks import CoarseSN, EnhancedSN, MaskCN, MutualBootstrap, binarise, guiding_mask, segment
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


def test_asked_both_ways_a_network_says_of_the_mirror_image_what_it_says_of_the_image() -> None:
    torch.manual_seed(0)
    enhanced, images, cam = EnhancedSN(SMOKE).eval(), torch.randn(3, 3, 64, 64), torch.rand(3, 1, 4, 4)
    with torch.no_grad():
        straight, reflected = enhanced(images, cam), enhanced(images.flip(-1), cam.flip(-1)).flip(-1)
        both = segment(enhanced, images, cam, mirrored=True)
        assert not torch.allclose(straight, reflected, atol=1e-4)
        torch.testing.assert_close(both, (straight + reflected) / 2)
        torch.testing.assert_close(segment(enhanced, images.flip(-1), cam.flip(-1), mirrored=True), both.flip(-1))
        assert torch.equal(segment(enhanced, images, cam, mirrored=False), straight)


def test_the_calibration_says_whether_the_chain_asks_both_ways() -> None:
    torch.manual_seed(0)
    networks, images = (CoarseSN(SMOKE), MaskCN(SMOKE), EnhancedSN(SMOKE)), torch.randn(2, 3, 64, 64)
    once, twice = (MutualBootstrap(*networks, calibration=Calibration(mirrored=m)).eval() for m in (False, True))
    with torch.no_grad():
        plain, mirrored = once(images), twice(images)
        torch.testing.assert_close(mirrored.coarse_probability, segment(networks[0], images, mirrored=True))
        assert torch.equal(mirrored.coarse_mask, binarise(mirrored.coarse_probability))
        torch.testing.assert_close(
            mirrored.lesion_probability, segment(networks[2], images, mirrored.cam, mirrored=True)
        )
    assert not torch.equal(plain.lesion_probability, mirrored.lesion_probability)


@pytest.mark.parametrize("kind", [CoarseSN, MaskCN])
def test_stochastic_depth_skips_blocks_in_training_alone(kind: type) -> None:
    plain = preset("compact").network  # timm's residual networks start with blocks that add nothing
    network = kind(replace(plain, drop_path=0.5))
    inputs = torch.randn(4, 3, 64, 64), torch.rand(4, 1, 64, 64)
    inputs = inputs[: 2 if kind is MaskCN else 1]

    def answers() -> torch.Tensor:
        said = network(*inputs)
        return said[0] if isinstance(said, tuple) else said

    for module in network.modules():  # what else is random or keeps count
        if isinstance(module, (torch.nn.Dropout, torch.nn.BatchNorm2d)):
            module.eval()
    with torch.no_grad():
        assert not torch.equal(answers(), answers())
        network.eval()
        assert torch.equal(answers(), answers())
        network.load_state_dict(kind(plain).state_dict())  # the weights are those of a network without


def test_every_parameter_of_the_chain_learns() -> None:
    coarse, mask, enhanced = CoarseSN(SMOKE), MaskCN(SMOKE), EnhancedSN(SMOKE)
    images = torch.randn(2, 3, 64, 64)
    logits, _ = mask(images, torch.ones(2, 1, 64, 64))
    (coarse(images).sum() + logits.square().sum() + enhanced(images, torch.rand(2, 1, 4, 4)).sum()).backward()
    for network in (coarse, mask, enhanced):
        assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("classes", [("benign", "malignant"), tuple("abcdefg")])
def test_mask_cn_has_an_output_for_each_class(classes):
    network = MaskCN(replace(SMOKE, classes=classes)).eval()
    assert network.classes == classes
    logits, _ = network(torch.zeros(2, 3, 64, 64), torch.zeros(2, 1, 64, 64))
    assert logits.shape == (2, len(classes))
