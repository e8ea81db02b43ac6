"""The baseline: BSRNN, and the controls that the comparison with it needs."""
