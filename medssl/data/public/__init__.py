"""Public data sets and published weights, downloaded and checked."""
