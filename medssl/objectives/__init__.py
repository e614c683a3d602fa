"""Self-supervised objectives, a folder for each family: each file holds one objective and has its name."""
