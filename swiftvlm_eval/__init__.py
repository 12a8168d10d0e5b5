"""swiftvlm-eval: visual-token pruning for LLaVA-1.5 and LLaVA-NeXT, compared."""
