"""Ablation 1: bidirectional Mamba along time, within each band."""
