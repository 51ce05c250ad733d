"""The settings of the engine that trains every stage."""

from __future__ import annotations

from dataclasses import dataclass

STRATEGIES = ("ddp", "deepspeed")


@dataclass(frozen=True)
class EngineConfig:
    """How any stage is trained; a stage's own section says for how long.

    Attributes:
        strategy: `ddp` (also for one process) or `deepspeed`.
        zero_stage: of DeepSpeed, 0 to 3: how much of the optimizer, gradients and weights is spread over the processes.
        accumulation: micro-batches an optimizer step; `batch_size` remains the images of a step, over all of them.
        clip_norm: largest norm of a step's gradient; 0 clips nothing.
        weight_decay: of AdamW; norms and biases do not decay.
        warmup_steps: over which the learning rate rises to its start, in optimizer steps of each stage.
        ema_decay: share of the weights' running mean that a step keeps, less at first; the mean is validated and
            published. 0 is off.
        activation_checkpointing: compute the encoder's activations twice instead of keeping them.
        compile: let torch.compile build the training step (GPU only).
        checkpoint_minutes: between two checkpoints at most; the end of an epoch is always one.
        keep_checkpoints: of a stage, the latest.
    """

    strategy: str = "ddp"
    zero_stage: int = 1
    accumulation: int = 1
    clip_norm: float = 0.0
    weight_decay: float = 0.0
    warmup_steps: int = 0
    ema_decay: float = 0.0
    activation_checkpointing: bool = False
    compile: bool = False
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 2

    def rules(self) -> list[tuple[bool, str]]:
        """What holds for usable values, each as a sentence's beginning."""
        return [
            (self.strategy in STRATEGIES, f"engine.strategy is one of {', '.join(STRATEGIES)}"),
            (0 <= self.zero_stage <= 3, "engine.zero_stage is between 0 and 3"),
            (self.accumulation >= 1, "engine.accumulation is at least 1"),
            (self.clip_norm >= 0, "engine.clip_norm is at least 0"),
            (self.weight_decay >= 0, "engine.weight_decay is at least 0"),
            (self.warmup_steps >= 0, "engine.warmup_steps is at least 0"),
            (0 <= self.ema_decay < 1, "engine.ema_decay is at least 0 and below 1"),
            (self.checkpoint_minutes > 0, "engine.checkpoint_minutes is above 0"),
            (self.keep_checkpoints >= 1, "engine.keep_checkpoints is at least 1"),
        ]
