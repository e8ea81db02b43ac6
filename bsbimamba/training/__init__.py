"""Configuration, losses, discriminator and the one training loop. Knows no network by name."""
