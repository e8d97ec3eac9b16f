"""The ``lienthong`` command.

Human output by default, JSON with ``--json``. Whatever goes wrong for a reason that a person can act on
is one line on standard error that says what to do; the exit status is then 1 (2 for a wrong call).
"""

from __future__ import annotations

import contextlib
import io
import sys

import asyncpg
import click

from hub.cli import (
    audit,
    axis,
    ca,
    demo,
    directory,
    keys,
    link,
    log,
    messages,
    operators,
    pdf,
    proof,
    serve,
    signatures,
    trust,
    verify,
    witness,
)
from hub.cli.output import Output
from protocol.problems import LienthongError, Problem

SECTIONS: dict[str, tuple[str, ...]] = {
    "The hub": ("init", "serve", "demo"),
    "Who takes part": ("agency", "endpoint", "group", "key", "trust", "axis", "link", "operator"),
    "Documents": ("sign", "send", "receive", "status", "pdf"),
    "Evidence": ("proof", "verify", "log", "witness", "audit"),
    "For trials": ("ca",),
}
"""How `lienthong --help` lists the commands; one that is named nowhere comes last."""


class _Group(click.Group):
    """Turns the project's errors into one line, and lists its commands in sections."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rest = [name for name in self.list_commands(ctx) if not any(name in names for names in SECTIONS.values())]
        width = max(map(len, self.commands))
        for title, names in {**SECTIONS, "Others": rest}.items():
            if names:
                rows = [(name.ljust(width), self.commands[name].get_short_help_str(200)) for name in names]
                with formatter.section(title):
                    formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except Problem as problem:
            reasons = "".join(
                f"; {path}: {reason}" for path, reason in problem.fields if reason not in problem.detail
            )
            hint = "; is the hub running, and is --url right?" if problem.code == "unreachable" else ""
            raise click.ClickException(_one_line(f"{problem.code}: {problem}{reasons}{hint}")) from None
        except (LienthongError, OSError) as error:
            raise click.ClickException(_one_line(str(error))) from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise click.ClickException(_one_line(f"the database refused: {error}")) from None


def _one_line(text: str) -> str:
    return " ".join(text.split())


@click.group(
    cls=_Group, context_settings={"auto_envvar_prefix": "LIENTHONG", "help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="lienthong", prog_name="lienthong")
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of tables and sentences.")
@click.pass_context
def main(ctx: click.Context, as_json: bool) -> None:
    """Lienthong: the hub through which public agencies exchange signed documents."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(io.UnsupportedOperation):
                # A terminal that cannot show Vietnamese shows escapes; it does not end the command.
                stream.reconfigure(errors="backslashreplace")
    ctx.obj = Output(as_json)


for command in (
    serve.serve,
    serve.init,
    directory.agency,
    directory.endpoint,
    directory.group,
    axis.axis,
    link.link,
    operators.operator,
    keys.key,
    trust.trust,
    ca.ca,
    pdf.pdf,
    messages.sign,
    messages.send,
    messages.receive,
    messages.status,
    proof.proof,
    verify.verify,
    witness.witness,
    log.log,
    audit.audit,
    demo.demo,
):
    main.add_command(command)
directory.endpoint.add_command(signatures.endpoint_signatures)
directory.endpoint.add_command(signatures.endpoint_acknowledgements)


if __name__ == "__main__":
    sys.exit(main())
