"""Model families: everything that is known of a checkpoint, and nothing of pruning. Imports no lmms-eval."""
