"""How the database of the review came to look as it does, step by step, so that older ones catch up."""
