"""Records which predictions were reviewed, and compares what readers saw with them."""
