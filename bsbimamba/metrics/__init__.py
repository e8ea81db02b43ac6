"""Metrics of enhanced speech."""
