"""Objectives that compare embeddings of places in the body, in several views."""
