"""Exchange of weights: tensor names of other projects, MONAI bundles, and transfer with a report of each tensor."""
