"""Feature extractor networks for metrics, and their weights."""
