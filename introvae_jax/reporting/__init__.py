"""What a run says of itself: terminal, metrics.jsonl, TensorBoard, pictures, advice, traces."""
