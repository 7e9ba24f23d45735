"""The commands put together, and what happens when one of them fails."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from sparse_circuits import __version__
from sparse_circuits.cli import (
    contexts,
    demo,
    evaluate,
    export,
    find,
    methods,
    models,
    report,
    shift,
    tasks,
    trace,
    view,
)
from sparse_circuits.errors import SparseCircuitsError

__all__ = ["app"]


class Commands(TyperGroup):
    """A group of commands that turns every expected error into one line on standard error.

    Exit codes: 2 for bad input of any kind (an unknown option, a missing file, a refused model), 130 for Ctrl-C.
    """

    def main(self, *args: Any, standalone_mode: bool = True, **options: Any) -> Any:
        with _own_warnings():
            try:
                code = super().main(*args, standalone_mode=False, **options)
            except typer.TyperException as error:
                code = _fail(error.format_message(), getattr(error, "ctx", None))
            except (SparseCircuitsError, OSError) as error:
                code = _fail(str(error))
        if code == 130:
            typer.echo("interrupted: nothing was written", err=True)
        if standalone_mode:
            sys.exit(code)
        return code


class Command(TyperCommand):
    """A command whose help lists options by their panel; typer itself does so only where rich draws the help."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or kind, []).append(record)
        # what belongs to no panel comes last, but for arguments, which come first
        for name in sorted(sections, key=("Arguments", *(n for n in sections if n != "Options"), "Options").index):
            with formatter.section(name):
                formatter.write_dl(sections[name])


app = typer.Typer(
    cls=Commands,
    no_args_is_help=False,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback(epilog="Start with: sparse-circuits demo")
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Find, check and draw the circuits inside transformer language models."""
    if version:
        typer.echo(f"sparse-circuits {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


for command, examples in (
    (find.find, find.EXAMPLES),
    (evaluate.evaluate, evaluate.EXAMPLES),
    (view.view, view.EXAMPLES),
    (report.report, report.EXAMPLES),
    (export.export, export.EXAMPLES),
    (methods.methods, methods.EXAMPLES),
    (models.models, models.EXAMPLES),
    (tasks.tasks, tasks.EXAMPLES),
    (demo.demo, demo.EXAMPLES),
    (shift.shift, shift.EXAMPLES),
    (contexts.features, contexts.EXAMPLES),
    (trace.trace, trace.EXAMPLES),
):
    app.command(
        cls=Command, epilog="\b\n" + "\n".join(["Examples:", *(f"  sparse-circuits {line}" for line in examples)])
    )(command)


def _fail(message: str, context: typer.Context | None = None) -> int:
    line = " ".join(message.split("\n")).rstrip(".")
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    typer.echo(f"error: {line}{hint}", err=True)
    return 2


@contextmanager
def _own_warnings() -> Iterator[None]:
    """Show the library's warnings as one line each; other packages' are nothing that a user could act on."""
    own = str(Path(__file__).parent.parent)
    shown: set[str] = set()

    def show(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
        if filename.startswith(own) and str(message) not in shown:
            shown.add(str(message))
            typer.echo(f"warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield
