"""Using a trained network on recordings of any length, rate and channel count."""
