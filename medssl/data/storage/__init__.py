"""How the cases of a store that does not fit into memory, or on a disk, are kept."""
