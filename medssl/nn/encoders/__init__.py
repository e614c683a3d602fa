"""The encoders that a run chooses from by name: a file each, with a `Config` that builds it."""
