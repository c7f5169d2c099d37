"""Figures of merit: how far a model is from its data."""
