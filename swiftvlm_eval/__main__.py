"""`python -m swiftvlm_eval` and the command `lmms_eval`: lmms-eval's own command line, with our models and tasks."""


def main() -> None:
    """Runs lmms-eval."""
    from lmms_eval.cli.dispatch import main as lmms_eval_main

    lmms_eval_main()


if __name__ == "__main__":
    main()
