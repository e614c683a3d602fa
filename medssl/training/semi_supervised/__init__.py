"""Semi-supervised finetuning: mean teacher, pseudo-labels, copy-paste and label propagation."""
