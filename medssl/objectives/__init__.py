"""Self-supervised objectives: each file holds one objective and has its name."""
