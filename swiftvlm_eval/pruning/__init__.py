"""Visual-token pruning as a library: methods, the engine that runs them, and the trace of what happened.

Needs torch and transformers only; nothing here imports lmms-eval.
"""
