"""Why pruning works or does not: what methods hold, and what their states become, compared with the unpruned model."""
