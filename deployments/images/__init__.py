"""Images for training and serving on real clouds."""
