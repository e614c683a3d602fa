"""Networks: encoders that know which cells are visible, decoders, and weights in and out."""
