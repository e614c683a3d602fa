"""Short scripts, one per command; no module imports them."""
