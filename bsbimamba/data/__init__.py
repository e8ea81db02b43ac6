"""Audio files, data sets, and the shipped sample."""
