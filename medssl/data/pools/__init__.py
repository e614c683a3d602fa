"""Random crops of the volumes of one store, and of pools of several."""
