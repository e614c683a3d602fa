"""From files to crops: manifest, ingest, store, crops, augmentation, phantoms."""
