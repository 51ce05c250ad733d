"""The chain of the three networks."""

from dataclasses import replace

import pytest
import torch

from mbdcnn.networks import CoarseSN, EnhancedSN, MaskCN, MutualBootstrap, binarise, guiding_mask
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


@pytest.mark.parametrize("classes", [("benign", "malignant"), tuple("abcdefg")])
def test_mask_cn_has_an_output_for_each_class(classes):
    network = MaskCN(replace(SMOKE, classes=classes)).eval()
    assert network.classes == classes
    logits, _ = network(torch.zeros(2, 3, 64, 64), torch.zeros(2, 1, 64, 64))
    assert logits.shape == (2, len(classes))
