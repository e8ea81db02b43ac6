"""Comparisons of systems: scoring, tables, figures, and a page to listen to."""
