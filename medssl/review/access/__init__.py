"""Access to the review app: reviewers and roles, sign-in, signed links and open cases."""
