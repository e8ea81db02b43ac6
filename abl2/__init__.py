"""Ablation 2: bidirectional Mamba along time and across bands."""
