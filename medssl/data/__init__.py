"""Data: manifests, stores, crops and everything between a scan and a training batch."""
