"""Scores of enhanced speech, and what they allow to be said."""
