"""Self-supervised objectives, one a file; a file's name is the objective's name."""
