"""How good a prediction is: overlap, surfaces, lesions, and how sure we are of it."""
