"""Plans a training from what a store holds: network, crops, steps and augmentation, each with its reason."""
