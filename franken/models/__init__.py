"""A checkpoint in memory: loading, families, token map, hooks, the creature."""
