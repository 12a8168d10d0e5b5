"""The tasks of LLaVA's own evaluation scripts: their prompts, answer lengths, answer rules and scores."""
