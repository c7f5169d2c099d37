"""Reports of a run: log lines, metrics.jsonl, TensorBoard, pictures, advice, traces."""
