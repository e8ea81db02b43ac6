"""Band-split bidirectional Mamba for speech enhancement."""
