"""Networks: encoders that support masked pretraining, decoders, heads, losses and weight transfer."""
