"""Networks as the sliding window applies them: those of torch, and files for other runtimes."""
