"""What lets a training survive signals, limits, faults of the machine and damaged files."""
