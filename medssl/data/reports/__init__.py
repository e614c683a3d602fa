"""Radiology reports of the cases of a store: their texts, and the embeddings of their sentences."""
