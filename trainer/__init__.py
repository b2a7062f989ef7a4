"""The trainer: SFT and GRPO stages on plain torch, with frozen layers and exact resume."""
