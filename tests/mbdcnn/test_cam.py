"""The activation map against a loop over classes and channels."""

import pytest
import torch
from torch import Tensor

from mbdcnn.cam import class_activation_map, class_activation_maps


def literal_map(features: Tensor, weight: Tensor, chosen: int) -> Tensor:
    """`(h, w)` float64 of one image `(C, h, w)`."""
    cam = torch.zeros(features.shape[1:], dtype=torch.float64)
    for k in range(features.shape[0]):
        cam += weight[chosen, k].double() * features[k].double()
    cam = cam.clamp(min=0)
    return cam / cam.max() if cam.max() > 0 else cam


def batch() -> tuple[Tensor, Tensor]:
    """Features `(4, 6, 3, 5)` and weights of 3 classes."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 6, 3, 5, generator=generator), torch.randn(3, 6, generator=generator)


def test_map_is_the_weighted_sum_of_the_chosen_class() -> None:
    features, weight = batch()
    classes = torch.tensor([0, 2, 1, 2])
    cam = class_activation_map(features, weight, classes)
    assert cam.shape == (4, 1, 3, 5)
    for image, chosen, got in zip(features, classes.tolist(), cam, strict=True):
        torch.testing.assert_close(got[0], literal_map(image, weight, chosen).float())


def test_maps_of_all_classes_are_the_weighted_sums() -> None:
    features, weight = batch()
    maps = class_activation_maps(features, weight)
    assert maps.shape == (4, 3, 3, 5)
    for image, of_image in zip(features, maps, strict=True):
        for chosen, got in enumerate(of_image):
            torch.testing.assert_close(got, literal_map(image, weight, chosen).float())


def test_the_predicted_class_is_the_default_and_the_bias_counts() -> None:
    features, weight = batch()
    logits = torch.stack([image.mean((1, 2)) @ weight.T for image in features])
    assert len(set(logits.argmax(1).tolist())) > 1
    torch.testing.assert_close(
        class_activation_map(features, weight), class_activation_map(features, weight, logits.argmax(1))
    )
    bias = torch.tensor([0.0, 100.0, 0.0])
    torch.testing.assert_close(
        class_activation_map(features, weight, bias=bias),
        class_activation_map(features, weight, torch.ones(4, dtype=torch.long)),
    )


def test_range_is_zero_to_one() -> None:
    torch.manual_seed(1)
    maps = class_activation_maps(torch.randn(8, 16, 7, 7), torch.randn(3, 16))
    assert maps.min() >= 0
    torch.testing.assert_close(maps.amax((2, 3)), torch.ones(8, 3))


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_a_map_without_evidence_is_zero_not_nan(value: float) -> None:
    features, weight = torch.full((1, 2, 4, 4), value), -torch.ones(3, 2)
    assert class_activation_map(features, weight).eq(0).all()
    assert class_activation_maps(features, weight).eq(0).all()


def test_mixed_precision_leaves_the_sum_in_float32() -> None:
    torch.manual_seed(2)
    features, weight = torch.randn(2, 512, 7, 7), torch.randn(3, 512)
    classes = torch.tensor([2, 0])
    expected = torch.stack([literal_map(f, weight, c) for f, c in zip(features, classes.tolist(), strict=True)])
    with torch.autocast("cpu", torch.bfloat16):
        one, every = class_activation_map(features, weight, classes), class_activation_maps(features, weight)
    assert one.dtype == every.dtype == torch.float32
    torch.testing.assert_close(one[:, 0], expected.float())
    torch.testing.assert_close(every[torch.arange(2), classes], expected.float())
