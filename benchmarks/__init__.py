"""One script a figure in docs/benchmarks.md."""
