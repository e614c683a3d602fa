"""A client that calls the routes of the app without a server."""

import warnings

from starlette.applications import Starlette

from medssl.review.access.reviewers import ReviewConfig


def make_client(config: ReviewConfig, **options):
    """Returns a client of the app's routes; a context starts and stops it."""
    from app.api import build_routes

    with warnings.catch_warnings():  # it prefers a client that is not on every machine
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient
    return TestClient(Starlette(routes=build_routes(config)), **options)
