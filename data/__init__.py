"""Audio files, datasets and the embedded corpus."""
