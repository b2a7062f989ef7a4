"""Who samples the responses of an RL step: one protocol, an implementation each."""

from trainer.engines.protocol import RolloutEngine

__all__ = ["RolloutEngine"]
