"""Measurements of what pruning costs, two states of the repository side by side in one run."""
