"""The check of a checkpoint before long runs: a small unpruned run, and gates that its samples must pass."""
