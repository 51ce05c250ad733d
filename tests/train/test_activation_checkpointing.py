"""Networks with checkpointed activations against the same without: gradients, statistics, what autograd keeps."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mbdcnn.networks import CoarseSN, MaskCN
from mbdcnn.presets import preset
from train.activation_checkpointing import checkpoint_activations


def _step(network: nn.Module) -> int:
    """Backward through a network with dropout, and how many bytes the forward pass has kept for it."""
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    torch.manual_seed(1)
    images, masks = torch.randn(4, 3, 64, 64), torch.rand(4, 1, 64, 64)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = network(images) if isinstance(network, CoarseSN) else network(images, masks)[0]
    (result * torch.linspace(-1, 1, result.numel()).view_as(result)).sum().backward()
    return kept


@pytest.mark.parametrize(
    ("kind", "encoder"),
    [
        (CoarseSN, "resnet10t"),
        (CoarseSN, "tf_efficientnet_lite0"),
        (CoarseSN, "xception65"),
        (MaskCN, "resnet10t"),
        (MaskCN, "legacy_xception"),
        (MaskCN, "convnext_tiny"),
    ],
)
def test_the_same_gradients_and_statistics_from_less_memory(kind: type[CoarseSN] | type[MaskCN], encoder: str) -> None:
    config = preset("smoke").network
    plain = kind(replace(config, segmentation_encoder=encoder, classification_encoder=encoder, decoder_dropout=0.5))
    frugal = copy.deepcopy(plain)
    checkpoint_activations(frugal)
    frugal = copy.deepcopy(frugal)  # as an average of weights does
    kept, kept_frugally = _step(plain), _step(frugal)
    assert kept_frugally < kept / 2
    for (name, ours), theirs in zip(frugal.named_parameters(), plain.parameters(), strict=True):
        if theirs.grad is None:
            assert ours.grad is None, name
        else:
            assert ours.grad is not None, name
            assert torch.equal(ours.grad, theirs.grad), name
    expected = plain.state_dict()
    assert list(frugal.state_dict()) == list(expected)
    for name, tensor in frugal.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
