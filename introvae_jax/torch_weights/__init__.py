"""Weights of PyTorch: reads .pth files safely, and maps released checkpoints to our networks."""
