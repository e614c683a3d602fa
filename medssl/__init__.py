"""Self-supervised pretraining, few-label finetuning and review of 3D medical images. Research use only."""

__version__ = "0.1.0"
