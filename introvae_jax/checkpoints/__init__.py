"""States on disk, whole or not at all, and noticed when they are damaged."""
