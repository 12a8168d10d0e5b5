"""The command `swiftvlm-eval`: the only place of the package that prints."""

import typer

from swiftvlm_eval.cli.analyses import drift_command, overlap_command
from swiftvlm_eval.cli.boards import import_command, leaderboard_command, records_command
from swiftvlm_eval.cli.costs import flops_command
from swiftvlm_eval.cli.demo import demo_command
from swiftvlm_eval.cli.estimate import estimate_command
from swiftvlm_eval.cli.examples import add_examples
from swiftvlm_eval.cli.joining import export_command, submit_check_command, wanted_command
from swiftvlm_eval.cli.latency import latency_command
from swiftvlm_eval.cli.layers import select_layers_command
from swiftvlm_eval.cli.methods import methods_command
from swiftvlm_eval.cli.pictures import show_command
from swiftvlm_eval.cli.runs import check_command, demo_data_command, sweep_command
from swiftvlm_eval.cli.serving import export_embeddings_command

app = typer.Typer(
    name="swiftvlm-eval",
    no_args_is_help=True,
    help="Compare visual-token pruning methods for LLaVA-1.5 and LLaVA-NeXT.",
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # brackets are brackets, and no option's name is cut
    context_settings={"max_content_width": 100},
)
app.command("sweep")(sweep_command)
app.command("leaderboard")(leaderboard_command)
app.command("records")(records_command)
app.command("import")(import_command)
app.command("check")(check_command)
app.command("submit-check")(submit_check_command)
app.command("wanted")(wanted_command)
app.command("export")(export_command)
app.command("methods")(methods_command)
app.command("flops")(flops_command)
app.command("estimate")(estimate_command)
app.command("latency")(latency_command)
app.command("select-layers")(select_layers_command)
app.command("show")(show_command)
app.command("overlap")(overlap_command)
app.command("drift")(drift_command)
app.command("export-embeddings")(export_embeddings_command)
app.command("demo")(demo_command)
app.command("demo-data")(demo_data_command)
add_examples(app)


def main() -> None:
    """Runs the command line."""
    app()


if __name__ == "__main__":
    main()
