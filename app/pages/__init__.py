"""The pages of the review app: each reads the state, shows it and records the acts of the reader."""
