"""`python -m swiftvlm_eval.cli`: the command `swiftvlm-eval`, for launchers that take a module."""

from swiftvlm_eval.cli import main

main()
