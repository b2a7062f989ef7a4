"""The trainer: SFT and GRPO stages on plain torch, with layers frozen on demand and exact resume."""
