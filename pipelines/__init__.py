"""Short scripts, one a command; imported by nobody."""
