"""Lightning callbacks: progress, monitors of representations, probes, checkpoints at the plateau."""
