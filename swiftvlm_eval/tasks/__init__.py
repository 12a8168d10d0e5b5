"""Tasks for lmms-eval: one folder per family, each with its YAML files, their functions and a README.

This folder is what the plugin registers and what `--include_path` can point to.
"""
