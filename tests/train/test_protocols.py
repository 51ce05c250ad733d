"""What the protocols ask, how often, and that stages are shown matching views of image and mask."""

import numpy as np
import pytest
import torch
from torch import nn

from mbdcnn.config import NetworkConfig
from mbdcnn.data.manifest import Item
from mbdcnn.errors import UserError
from mbdcnn.networks import CoarseSN, EnhancedSN, MaskCN, MutualBootstrap
from mbdcnn.networks.bootstrap import guide, guiding_mask
from mbdcnn.preprocessing import Preprocessing, prepare
from train.protocols import Authors, Single, protocol_named

SPEC = Preprocessing(image_size=64)  # scales 64, 80, 80
CPU = torch.device("cpu")


class Coarse(nn.Module):
    """A lesion is what is dark, pixel by pixel."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
        nn.init.constant_(self.conv.weight, -3.0)
        nn.init.zeros_(self.conv.bias)

    def forward(self, images):
        return torch.sigmoid(self.conv(images))


class Mask(nn.Module):
    """Classes are colours, weighed where the mask is; features keep the image's size."""

    def __init__(self, channels=4):
        super().__init__()
        self.conv = nn.Conv2d(channels, 5, 1)
        self.classifier = nn.Linear(5, 3)
        self.seen = []

    def forward(self, images, masks):
        self.seen.append((images, masks))
        features = torch.relu(self.conv(images if masks is None else torch.cat([images, masks], 1)))
        return self.classifier(features.mean((2, 3))), features


class Enhanced(nn.Module):
    """Dark pixels, and more so where the map is bright."""

    def __init__(self):
        super().__init__()
        self.dark = Coarse()

    def forward(self, images, cam):
        logits = torch.logit(self.dark(images), 1e-6)
        return torch.sigmoid(logits if cam is None else logits + cam - 0.5)


def whole(further=0):
    torch.manual_seed(7)
    pairs = [(Mask(), Enhanced()) for _ in range(further)]
    return MutualBootstrap(Coarse(), Mask(), Enhanced(), further_rounds=pairs).eval()


def blob(height=90, width=130):
    """A soft dark spot, well off the centre, on skin that changes colour from left to right."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot((x / width - 0.35) * 1.5, y / height - 0.62)
    dark = 1 / (1 + np.exp((distance - 0.22) / 0.04))
    skin = np.stack([225 - 30 * x / width, 160 + 40 * y / height, 170 + 20 * x / width], -1)
    return (skin * (1 - 0.85 * dark[..., None])).astype(np.uint8)


def ask(protocol, *images):
    loaded = zip(*(protocol.load(image) for image in images), strict=True)
    items = [Item(str(n), "test", f"{n}.png", None, None, 1, 1, "", None) for n in range(len(images))]
    return protocol.ask([torch.from_numpy(np.stack(part)) for part in loaded], items)


def counted(network):
    """Counts images, call by call, that a network is shown from now on."""
    calls = []
    network.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    return calls


def test_pixelwise_networks_answer_in_many_views_as_in_one():
    networks, image = whole(), blob()
    (one,), (many,) = ask(Single(networks, SPEC, 4, CPU), image), ask(Authors(networks, SPEC, 4, CPU), image)
    for name in ("coarse", "enhanced"):
        a, b = (getattr(answer, name)(90, 130) for answer in (one, many))
        assert a.shape == b.shape == (90, 130)
        assert 0.05 < (a > 0.5).mean() < 0.5
        np.testing.assert_allclose(a, b, atol=0.06)  # bilinear and bicubic, one size and three
        assert ((a > 0.5) != (b > 0.5)).mean() < 0.01
    np.testing.assert_allclose(one.cam, many.cam, atol=0.2)  # at the rim of the spot


def test_every_crop_of_one_colour_is_the_same_answer():
    networks, image = whole(), np.full((50, 70, 3), (200, 120, 90), np.uint8)
    (one,), (many,) = ask(Single(networks, SPEC, 4, CPU), image), ask(Authors(networks, SPEC, 4, CPU), image)
    np.testing.assert_allclose(one.probabilities, many.probabilities, atol=1e-5)
    np.testing.assert_allclose(one.enhanced(50, 70), many.enhanced(50, 70), atol=1e-4)


def test_image_and_mask_are_shown_in_the_same_view():
    networks = whole()
    ask(Authors(networks, SPEC, 64, CPU), blob(), blob(60, 60)[::-1].copy())
    pairs = [pair for images, masks in networks.mask_cn.seen for pair in zip(images, masks, strict=True)]
    assert len(pairs) == 2 * (9 + 18)
    for image, mask in pairs:
        dark = image.mean(0, keepdim=True) < 0
        assert mask.shape == (1, *image.shape[1:])
        assert ((mask > 0.5) != dark).float().mean() < 0.03
    assert sum(0.02 < mask.mean() < 0.6 for _, mask in pairs) > 40  # small central crops miss the spot


@pytest.mark.parametrize("height", [3, 90, 3000])
def test_what_is_kept_of_an_image_has_the_networks_size(height):
    image = np.zeros((height, 2 * height, 3), np.uint8)
    assert [part.shape for part in Single(whole(), SPEC, 4, CPU).load(image)] == [(3, 64, 64)]
    shapes = [part.shape for part in Authors(whole(), SPEC, 4, CPU).load(image)]
    assert shapes == [(3, 64, 64), (3, 80, 80), (3, 80, 80), (9, 3, 64, 64), (9, 4)]


@pytest.mark.parametrize(("further", "batch_size"), [(0, 4), (0, 24), (2, 10)])
def test_passes_per_image(further, batch_size):
    networks = whole(further)
    coarse, mask, enhanced = (counted(n) for n in (networks.coarse_sn, networks.mask_cn, networks.enhanced_sn))
    last = counted(networks.further_rounds[-1][0]) if further else mask
    protocol = Authors(networks, SPEC, batch_size, CPU)
    count = protocol.images
    assert count == batch_size // 2
    ask(protocol, *[blob(40, 50)] * count)
    assert coarse == enhanced == [batch_size] * 9  # 18 views of half a batch of images, every call full
    assert sum(last) == (18 + 9) * count
    assert max(last) <= batch_size
    if further:
        assert sum(mask) == 18 * count  # only the last round decides


def test_scores_equal_one_view_at_a_time():
    """The protocol spelled out with the plain networks, view by view, without the module's helpers."""
    networks, image = whole(), blob()
    turns = [(k, None) for k in range(4)] + [(0, 3), (0, 2)]

    def logits_at(side, answer):
        picture = torch.from_numpy(prepare(image, Preprocessing(side)))[None]
        total = torch.zeros(1, 1, side, side)
        for k, axis in turns:
            shown = torch.rot90(picture, k, (2, 3)) if axis is None else picture.flip(axis)
            said = torch.logit(answer(shown, k, axis), 1e-6)
            total += torch.rot90(said, 4 - k, (2, 3)) if axis is None else said.flip(axis)
        return total / 6

    def resized(planes, height, width):
        size = {"size": (height, width), "mode": "bicubic", "antialias": True}
        return sum(torch.nn.functional.interpolate(plane, **size) for plane in planes) / 3

    def enhanced(shown, k, axis):
        mask = guiding_mask(resized(coarse, *shown.shape[2:]).sigmoid())
        mask = torch.rot90(mask, k, (2, 3)) if axis is None else mask.flip(axis)
        return networks.enhanced_sn(shown, guide(networks.mask_cn, shown, mask).cam)

    with torch.inference_mode():
        coarse = [logits_at(side, lambda shown, *_: networks.coarse_sn(shown)) for side in (64, 80, 80)]
        final = [logits_at(side, enhanced) for side in (64, 80, 80)]
    (answer,) = ask(Authors(networks, SPEC, 5, CPU), image)
    for planes, lesion in ((coarse, answer.coarse), (final, answer.enhanced)):
        np.testing.assert_allclose(resized(planes, 90, 130).sigmoid()[0, 0], lesion(90, 130), atol=2e-3)


def test_decisions_are_the_mean_softmax_over_the_crops():
    networks, image = whole(), blob()
    (answer,) = ask(Authors(networks, SPEC, 9, CPU), image)
    crops = next((images, masks) for images, masks in networks.mask_cn.seen if len(images) == 9)
    with torch.inference_mode():
        each = guide(networks.mask_cn, *crops)
    assert each.probabilities.std(0).max() > 1e-3
    np.testing.assert_allclose(answer.probabilities, each.probabilities.mean(0), atol=1e-6)
    np.testing.assert_allclose(answer.cam, each.cam[-1, 0], atol=1e-6)
    np.testing.assert_allclose(crops[0][-1], prepare(image, SPEC), atol=1e-6)
    np.testing.assert_allclose(crops[0][5], prepare(image[18:72, 38:92], SPEC), atol=1e-6)  # 3/5 of the shorter side


def real(*, coarse=True, mask=True, enhanced=True, guided=True):
    torch.manual_seed(3)
    config = NetworkConfig("resnet10t", "resnet10t", weights="none", decoder_channels=16, mask_channel=guided)
    return MutualBootstrap(
        CoarseSN(config) if coarse else None, MaskCN(config) if mask else None, EnhancedSN(config) if enhanced else None
    ).eval()


@pytest.mark.parametrize("protocol", ["single", "authors"])
@pytest.mark.parametrize(
    ("parts", "there"),
    [
        ({}, "coarse enhanced probabilities cam"),
        ({"mask": False, "enhanced": False}, "coarse"),
        ({"enhanced": False}, "coarse probabilities cam"),
        ({"coarse": False, "enhanced": False, "guided": False}, "probabilities cam"),
        ({"coarse": False, "guided": False}, "enhanced probabilities cam"),
    ],
)
def test_a_network_that_is_not_there_says_nothing(protocol, parts, there):
    (answer,) = ask(protocol_named(protocol, real(**parts), Preprocessing(32), 8, CPU), blob())
    names = ("coarse", "enhanced", "probabilities", "cam")
    assert [name for name in names if getattr(answer, name) is not None] == there.split()
    if "probabilities" in there:
        assert answer.probabilities.sum() == pytest.approx(1, abs=1e-5)
    for lesion in (answer.coarse, answer.enhanced):
        assert lesion is None or (lesion(90, 130).shape == (90, 130) and 0 <= lesion(90, 130).min() <= 1)


def test_answers_do_not_depend_on_the_batch():
    networks, images = real(), [blob(), blob(60, 40)]
    together = ask(Authors(networks, Preprocessing(32), 7, CPU), *images)
    for image, answer in zip(images, together, strict=True):
        (alone,) = ask(Authors(networks, Preprocessing(32), 16, CPU), image)
        np.testing.assert_allclose(answer.probabilities, alone.probabilities, atol=1e-4)
        np.testing.assert_allclose(answer.enhanced(50, 60), alone.enhanced(50, 60), atol=1e-3)


def test_a_further_round_goes_on_from_the_enhanced_mask():
    networks = whole(1)
    mask_cn = networks.further_rounds[0][0]
    with torch.no_grad():  # the first round's enhanced mask is everything
        networks.enhanced_sn.dark.conv.weight.zero_()
        networks.enhanced_sn.dark.conv.bias.fill_(9)
    (answer,) = ask(Authors(networks, SPEC, 64, CPU), blob())
    assert all((masks == 1).all() for _, masks in mask_cn.seen)
    assert (answer.enhanced(90, 130) > 0.5).mean() < 0.5  # the last round's


@pytest.mark.parametrize("part", ["coarse_sn", "mask_cn", "enhanced_sn"])
def test_an_answer_that_is_not_a_number_is_an_error(part):
    networks = whole()
    with torch.no_grad():
        next(getattr(networks, part).parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match=r"answer to 0\.png is not a number"):
        ask(Authors(networks, SPEC, 4, CPU), blob())


def test_other_names_and_other_networks_are_refused():
    with pytest.raises(UserError, match="no protocol double; the protocols are single and authors"):
        protocol_named("double", whole(), SPEC, 4, CPU)
    with pytest.raises(TypeError, match="MutualBootstrap"):
        protocol_named("authors", lambda images: None, SPEC, 4, CPU)
