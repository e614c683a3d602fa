"""From a volume to labels, probabilities and findings on the volume's own grid."""
