"""The chain of the three networks."""

from dataclasses import replace

import pytest
import torch

from mbdcnn.cam import class_activation_map
from mbdcnn.doubt import Calibration
from mbdcnn.networks import (
    VIEWS,
    CoarseSN,
    EnhancedSN,
    MaskCN,
    MutualBootstrap,
    binarise,
    guide,
    guiding_mask,
    over_views,
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


@pytest.mark.parametrize("views", [2, 4])
def test_asked_about_views_a_network_says_of_a_turned_image_what_it_says_of_the_image(views: int) -> None:
    torch.manual_seed(0)
    enhanced, images, cam = EnhancedSN(SMOKE).eval(), torch.randn(3, 3, 64, 64), torch.rand(3, 1, 4, 4)

    def seen(*axes: int) -> torch.Tensor:
        return enhanced(images.flip(axes), cam.flip(axes)).flip(axes)

    with torch.no_grad():
        all_views = [seen(*axes) for axes in VIEWS[views]]
        assert not torch.allclose(all_views[0], all_views[1], atol=1e-4)
        mean = over_views(enhanced, images, cam, views=views)
        torch.testing.assert_close(mean, sum(all_views) / views)
        turned = over_views(enhanced, images.flip(-1, -2), cam.flip(-1, -2), views=views)
        torch.testing.assert_close(turned, mean.flip(-1, -2))
        assert torch.equal(over_views(enhanced, images, cam, views=1), all_views[0])


def test_the_class_and_the_map_of_views_are_those_of_their_mean_features() -> None:
    torch.manual_seed(0)
    mask_cn, images, masks = MaskCN(SMOKE).eval(), torch.randn(2, 3, 64, 64), torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        each = [mask_cn(images.flip(axes), masks.flip(axes)) for axes in VIEWS[4]]
        features = sum(maps.flip(axes) for (_, maps), axes in zip(each, VIEWS[4], strict=True)) / 4
        found = guide(mask_cn, images, masks, views=4)
        torch.testing.assert_close(found.logits, sum(logits for logits, _ in each) / 4)
        torch.testing.assert_close(found.logits, mask_cn.classifier(features.mean((2, 3))))
        cam = class_activation_map(features, mask_cn.classifier.weight, found.logits.argmax(1))
        torch.testing.assert_close(found.cam, cam)


def test_the_calibration_says_how_many_views_the_chain_asks_about() -> None:
    torch.manual_seed(0)
    networks, images = (CoarseSN(SMOKE), MaskCN(SMOKE), EnhancedSN(SMOKE)), torch.randn(2, 3, 64, 64)
    once, more = (MutualBootstrap(*networks, calibration=Calibration(views=n)).eval() for n in (1, 2))
    with torch.no_grad():
        plain, mean = once(images), more(images)
        torch.testing.assert_close(mean.coarse_probability, over_views(networks[0], images, views=2))
        assert torch.equal(mean.coarse_mask, binarise(mean.coarse_probability))
        guided = guide(networks[1], images, guiding_mask(mean.coarse_probability), views=2)
        torch.testing.assert_close(mean.logits, guided.logits)
        torch.testing.assert_close(mean.lesion_probability, over_views(networks[2], images, mean.cam, views=2))
    assert not torch.equal(plain.lesion_probability, mean.lesion_probability)


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
