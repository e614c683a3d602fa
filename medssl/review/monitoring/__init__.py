"""Watches how readers judge a model over time."""
