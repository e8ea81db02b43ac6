"""Scores of enhanced speech, and tables of them. Knows no network by name."""
