"""Images: where they come from, how they are decoded, and in which order they are read."""
