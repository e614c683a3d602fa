"""The pages of the review app: each reads state, draws, and records."""
