"""Use a trained network: recordings of any length, rate and channel count; exported models."""
