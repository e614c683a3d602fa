"""Semi-supervised finetuning: mean teacher, pseudo-labels and label propagation."""
