"""Data set layouts: each file of a folder as a channel, a label or a description of a case."""
