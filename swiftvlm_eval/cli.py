"""The command `swiftvlm-eval`: the only place of the package that prints."""

import typer

app = typer.Typer(
    name="swiftvlm-eval",
    no_args_is_help=True,
    help="Compare visual-token pruning methods for LLaVA-1.5 and LLaVA-NeXT.",
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Runs the command line."""
    app()


if __name__ == "__main__":
    main()
