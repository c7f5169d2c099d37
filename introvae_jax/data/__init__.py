"""Images: reading, decoding, preparing, and the order in which training sees them."""
