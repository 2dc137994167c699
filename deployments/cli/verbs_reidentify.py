"""The verb that opens encrypted values again, for the holder of the key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.app import AsJson, app, print_json


@app.command()
def reidentify(
    domain: Annotated[str, typer.Option("--domain", help="The entity's name, or the domain of the policy's rule.")],
    to: Annotated[str, typer.Option("--to", help="The cloud that the dataset went to.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; the audit log keeps it. Name nobody in it.")],
    file: Annotated[
        Path | None, typer.Argument(help="A file of them, one a line; standard input unless given.")
    ] = None,
    preserved: Annotated[
        bool,
        typer.Option("--preserved", help="They are what 'format_preserve' wrote."),
    ] = False,
    moved_within_days: Annotated[
        int,
        typer.Option(
            "--moved-within-days",
            min=0,
            help="They are subjects, commas and dates that 'shift_dates' moved; this is the rule's max_days.",
        ),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """The values that a policy's 'encrypt' wrote, on standard output, one a line; the audit log keeps count and reason.

    Tokens and hashes are one-way and are refused. Needs the key that lintas.yaml refers to. All are opened, or none.
    """
    from tasks.core.errors import Invalid
    from tasks.reidentification import reidentify as opened

    if preserved and moved_within_days:
        raise Invalid("they are said to be of two kinds", "use either --preserved or --moved-within-days")
    given = _lines(file)
    if not moved_within_days:
        # Quotes are those of a CSV that a column was cut from; nothing encrypted has any.
        given = [line.strip('"') for line in given]
    values = opened(
        given,
        domain=domain,
        destination=to,
        reason=reason,
        preserved=preserved,
        moved_within_days=moved_within_days,
    )
    if as_json:
        print_json({"count": sum(1 for value in values if value), "values": values})
        return
    if any(value.splitlines() not in ([], [value]) for value in values):
        raise Invalid("a value has several lines", "read them with --json")
    sys.stdout.buffer.write("".join(f"{value}\n" for value in values).encode())


def _lines(file: Path | None) -> list[str]:
    from tasks.core.errors import Invalid, NotFound

    if file is not None and file.name.strip('"').startswith("enc_"):
        # Other users see the arguments of a process, and shells remember them.
        raise Invalid("an argument looks like an encrypted value", "give them on standard input, or in a file")
    try:
        data = sys.stdin.buffer.read() if file is None else file.read_bytes()
    except OSError as error:
        raise NotFound(f"the file {file} cannot be read ({error.strerror})", "correct its path") from None
    try:
        return [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise Invalid("what was given to open is no text", "give what 'encrypt' wrote, one a line") from None
