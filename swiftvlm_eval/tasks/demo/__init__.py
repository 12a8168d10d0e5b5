"""Small twins of the benchmarks on the embedded synthetic data."""
