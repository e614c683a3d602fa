"""Imports the fixtures of `tests.helpers.predictions_fixture`."""

from tests.helpers.predictions_fixture import predictions, references  # noqa: F401
