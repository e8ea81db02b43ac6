"""Ablation 3: bidirectional Mamba on both paths, and a decoder as wide as each band needs."""
