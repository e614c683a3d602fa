"""Pretraining and finetuning: configuration, data loaders, training loop, optimizers and callbacks."""
