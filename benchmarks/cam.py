"""The class activation map of mask-CN's last feature maps against a loop over their 2048 channels."""

from __future__ import annotations

import torch
from _measure import alternate, report
from torch import Tensor

from mbdcnn.cam import class_activation_map, class_activation_maps

BATCH, CHANNELS, SIDE, CLASSES = 16, 2048, 14, 3
GOALS = {"channel_loop_over_ours": ">= 10", "channel_loop_over_ours_all_classes": ">= 10"}


def literal_map(image: Tensor, weights: Tensor) -> Tensor:
    """One image's map `(h, w)`: its channels `(C, h, w)` added one by one."""
    cam = image.new_zeros(image.shape[1:])
    for channel, weight in zip(image, weights, strict=True):
        cam = cam + weight * channel
    cam = torch.relu(cam)
    return cam / cam.max().clamp(min=1e-6)


def measure(quick: bool) -> dict[str, float]:
    """A batch as the paper's mask-CN gives it, float32, without gradients."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    features = torch.relu(torch.randn(BATCH, CHANNELS, SIDE, SIDE, device=device))
    weight = torch.randn(CLASSES, CHANNELS, device=device) / CHANNELS**0.5
    classes = torch.randint(CLASSES, (BATCH,), device=device)

    def loop() -> Tensor:
        return torch.stack([literal_map(image, weight[c])[None] for image, c in zip(features, classes, strict=True)])

    def loop_all_classes() -> Tensor:
        return torch.stack([torch.stack([literal_map(image, row) for row in weight]) for image in features])

    def ours() -> Tensor:
        return class_activation_map(features, weight, classes)

    def ours_all_classes() -> Tensor:
        return class_activation_maps(features, weight)

    torch.testing.assert_close(ours(), loop(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours_all_classes(), loop_all_classes(), atol=1e-4, rtol=1e-4)
    rounds = 3 if quick else 15
    one = alternate(rounds, ours=ours, channel_loop=loop)
    every = alternate(rounds, ours_all_classes=ours_all_classes, channel_loop_all_classes=loop_all_classes)
    return {
        "channel_loop_over_ours": one["channel_loop"] / one["ours"],
        "channel_loop_over_ours_all_classes": every["channel_loop_all_classes"] / every["ours_all_classes"],
    }


if __name__ == "__main__":
    with torch.no_grad():
        report("cam", measure, GOALS)
