"""What pruning saves: FLOPs by formula, latency and memory by measurement."""
