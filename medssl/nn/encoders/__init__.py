"""The encoders that a config can select by name; each file holds one encoder and its `Config`."""
