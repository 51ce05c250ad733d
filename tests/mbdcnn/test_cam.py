"""The activation map against a loop over channels."""

import torch

from mbdcnn.cam import class_activation_map


def test_map_is_the_weighted_sum_of_the_chosen_class() -> None:
    torch.manual_seed(0)
    features, weight = torch.randn(4, 6, 3, 5), torch.randn(3, 6)
    classes = torch.tensor([0, 2, 1, 2])
    cam = class_activation_map(features, weight, classes)
    assert cam.shape == (4, 1, 3, 5)
    for image, chosen, got in zip(features, classes, cam, strict=True):
        expected = torch.zeros(3, 5)
        for channel in range(6):
            expected += weight[chosen, channel] * image[channel]
        expected = expected.clamp(min=0)
        torch.testing.assert_close(got[0], expected / expected.max())


def test_range_is_zero_to_one() -> None:
    torch.manual_seed(1)
    cam = class_activation_map(torch.randn(8, 16, 7, 7), torch.randn(3, 16), torch.zeros(8, dtype=torch.long))
    assert cam.min() >= 0
    torch.testing.assert_close(cam.amax((1, 2, 3)), torch.ones(8))


def test_a_map_without_evidence_is_zero_not_nan() -> None:
    cam = class_activation_map(torch.ones(1, 2, 4, 4), -torch.ones(3, 2), torch.tensor([1]))
    assert cam.eq(0).all()
