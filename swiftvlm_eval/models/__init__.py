"""What the engine and the model classes need to know of LLaVA checkpoints. Imports no lmms-eval."""
