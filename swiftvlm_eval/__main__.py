"""`python -m swiftvlm_eval`: lmms-eval's own command line, with our models and tasks."""

from swiftvlm_eval.command import lmms_eval_main

if __name__ == "__main__":
    lmms_eval_main()
