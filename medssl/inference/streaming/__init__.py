"""The way of class probabilities from the working grid back to the scanner's grid, in blocks of slices."""
