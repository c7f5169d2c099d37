"""Weights that others have released: their files, read as data, and what they are called here."""
