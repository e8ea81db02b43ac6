"""Configuration, losses, adversary and the one training loop. Knows no network by name."""
