"""Commands beside training, enhancing and scoring."""
