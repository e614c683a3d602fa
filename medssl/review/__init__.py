"""Reviews predictions: the event log, readings, worklist, priors, agreement and feedback. Does not import torch."""
