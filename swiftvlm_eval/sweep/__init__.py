"""A grid of methods and budgets on one loaded model, through lmms-eval, one record per configuration.

A configuration whose record is there is not run again; one that was interrupted goes on from its stored answers. Any
number of processes may share one output folder.
"""

from swiftvlm_eval.sweep.configurations import Configuration, make_grid, parse_methods, parse_shard
from swiftvlm_eval.sweep.running import Outcome, Preview, Sweep

__all__ = ["Configuration", "Outcome", "Preview", "Sweep", "make_grid", "parse_methods", "parse_shard"]
