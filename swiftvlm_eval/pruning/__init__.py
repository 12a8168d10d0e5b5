"""Visual-token pruning as a library: the contract, the methods, the engine that runs them, and what it traced.

Needs torch, transformers and pydantic; nothing here imports lmms-eval.
"""
