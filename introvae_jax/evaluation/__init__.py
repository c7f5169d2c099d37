"""Scores of a trained model, or of any two sets of images, each with the protocol it was obtained by."""
