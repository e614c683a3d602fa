"""Who may read and what they may do: reviewers, sign-in, signed links, and locks on open cases."""
