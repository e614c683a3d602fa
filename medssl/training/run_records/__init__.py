"""What a run records about where it was made, and how it is made again."""
