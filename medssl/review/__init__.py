"""Findings, verdicts and the store that loses none of them. No torch."""
