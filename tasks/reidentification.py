"""Opening what a policy encrypted, for those who hold the key: the audit log knows of it before anybody sees a value.

No Prefect step: a run would keep what goes in and out.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence

from tasks.core.audit import AuditKind
from tasks.core.errors import Invalid, LintasError
from tasks.core.preserving import Preserving
from tasks.core.sealed_values import Seal
from tasks.core.shifting import moved_back
from tasks.core.treatments import shift_key
from tasks.registry import installation

_TELLING = 4
"""Characters from which on a value is looked for in the reason: shorter ones stand in any sentence."""


def reidentify(
    texts: Sequence[str],
    *,
    domain: str,
    destination: str,
    reason: str,
    preserved: bool = False,
    moved_within_days: int = 0,
) -> list[str]:
    """The values that ciphertexts stand for: all of them, or none and an error.

    Every attempt enters the audit log with how many were asked for and how it ended, with domain and reason
    when they were opened; never a value or a ciphertext.

    Args:
        texts: What the action `encrypt` wrote, one line each; empty lines stay empty, as nulls do.
        preserved: They are what `format_preserve` wrote. Nothing in them tells whether that is so: every text of the
            right form opens to something, under the present key alone.
        moved_within_days: They are dates that `shift_dates` moved, each behind its subject and a comma, by a rule whose
            `max_days` this is; 0 when they are not. Nothing tells whether key and subject are the right ones.
        domain: As in the policy: the entity's name unless the rule says another.
        destination: The cloud that the dataset went to.
        reason: Why, in the words of the person who asks.

    Raises:
        Invalid: Something that was said is wrong, or a line is a token, a hash or nothing that was encrypted.
        Denied: A key is missing: nobody without it can open anything.
        IntegrityError: A line was altered, or is of another domain or destination.
    """
    here = installation()
    here.cloud(destination)
    if not reason.strip():
        raise Invalid("the reason is empty", "say why with --reason; the audit log keeps it")
    if not domain.strip():
        raise Invalid("the domain is empty", "give the entity's name, or the domain of the policy's rule, by --domain")
    asked = sum(1 for text in texts if text)
    if not asked:
        raise Invalid("there is nothing to open", "give what 'encrypt' wrote, one a line")
    # A refusal keeps no words: while nothing is open, nobody can tell whether a value stands in them.
    made_by = "format_preserve" if preserved else "shift_dates" if moved_within_days else ""
    facts = {"count": asked, "uid": os.getuid()} | ({"made_by": made_by} if made_by else {})
    try:
        if moved_within_days:
            values = _moved_back(texts, shift_key(here.pseudonym_key, domain, destination), moved_within_days)
        elif preserved:
            values = Preserving(here.pseudonym_key, domain, destination).decrypt(texts)
        else:
            seals = [Seal(key, domain, destination) for key in here.pseudonym_keys()]
            values = [_opened(seals, text, f"line {number}") for number, text in enumerate(texts, 1)]
        if any(len(value) >= _TELLING and value in reason for value in values):
            raise Invalid("the reason holds one of the values", "say why without naming whom")
    except LintasError as error:
        ended = {"decision": "refused", "why": type(error).__name__}
        here.records.audit.append(AuditKind.REIDENTIFICATION, destination, facts | ended)
        raise
    ended = {"decision": "opened", "domain": domain, "reason": reason}
    here.records.audit.append(AuditKind.REIDENTIFICATION, destination, facts | ended)
    return values


def _moved_back(texts: Sequence[str], key: bytes, max_days: int) -> list[str]:
    lines = [next(csv.reader([text])) if text else ["", ""] for text in texts]
    wrong = next((number for number, cells in enumerate(lines, 1) if len(cells) != 2), 0)
    if wrong:
        raise Invalid(f"line {wrong} is not a subject, a comma and a date", "give both columns, as a CSV has them")
    return moved_back([subject for subject, _ in lines], [date for _, date in lines], key, max_days)


def _opened(seals: Sequence[Seal], text: str, name: str) -> str:
    return next((seal for seal in seals if seal.made(text)), seals[0]).open(text, name) if text else ""
