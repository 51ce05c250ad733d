"""Activation checkpointing: an encoder's blocks keep their inputs only and are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mbdcnn.networks import CoarseSN, MaskCN

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def checkpoint_activations(network: CoarseSN | MaskCN) -> None:
    """Make every block of a network's encoder keep its input alone; gradients and running statistics stay the same.

    timm's `set_grad_checkpointing` does not do: some encoders refuse it (`legacy_xception`), feature extractors leave
    out some of their parts, and all let batch norm count each batch twice. Parameters keep their names. Copies of the
    network made afterwards are checkpointed too.
    """
    encoder = network.encoder.model if isinstance(network, CoarseSN) else network.backbone
    for block in _blocks(encoder):
        block.forward = partial(_recomputed, block)  # a partial, not a closure: a copy of the block gets its own


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules with convolutions inside that are not mere lists, or stages of timm's, of such."""
    for child in module.children():
        if isinstance(child, _CONTAINERS) or type(child).__name__.endswith("Stage"):
            yield from _blocks(child)
        elif any(isinstance(part, nn.Conv2d) for part in child.modules()) and not isinstance(child, nn.Conv2d):
            yield child


def _recomputed(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = partial(type(block).forward, block)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=partial(_contexts, block), **kwargs)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds a block's first computation, and its second."""
    return nullcontext(), _without_statistics(block)


@contextmanager
def _without_statistics(block: nn.Module) -> Iterator[None]:
    """Let batch norm normalise without a trace in its running statistics.

    A momentum of 0 leaves them as they are, and autograd saves as many tensors as in the first computation, which
    it checks; a batch norm without statistics would save fewer.
    """
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter
