"""Evaluates trained models and sets of images. Each value is stored with its protocol."""
