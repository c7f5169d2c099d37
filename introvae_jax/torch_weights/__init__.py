"""PyTorch weights: reads .pth files safely, and maps released checkpoints to the networks of this package."""
