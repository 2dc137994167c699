"""Audit steps: the log's chain, and what receipts promised."""

from __future__ import annotations

from tasks.core.audit import ChainHead, verify_chain
from tasks.core.errors import IntegrityError, NotFound
from tasks.registry import installation
from tasks.steps import say, step


@step(name="verify log")
def verify_log() -> ChainHead:
    """Check that no audit record was altered, removed or inserted. Raises `IntegrityError` naming the record."""
    checked = verify_chain(installation().records.audit.records())
    if not checked.sound:
        fault = checked.faults[0]
        raise IntegrityError(
            f"audit record {fault.sequence} was {fault.what}: {fault.detail}",
            "find out who else writes to the state directory",
        )
    say(f"the audit log is sound: {checked.head.sequence} records, head {checked.head.digest[:16]}")
    return checked.head


def latest_receipts() -> dict[str, str]:
    """The digest that each destination held after the last move to it."""
    receipts = installation().records.audit.records(kind="receipt")
    return {record.subject: str(record.facts["digest"]) for record in receipts}


@step(name="verify dataset", retries=2, run_name="verify {uri}")
def verify_dataset(uri: str, digest: str, *, reread: bool) -> bool:
    """Whether a dataset still has the digest that its receipt gives; false when it is gone."""
    # To check the log takes none of what lists datasets.
    from tasks.storage import manifest_of

    try:
        return manifest_of(installation().parse(uri), reread=reread).digest == digest
    except NotFound:
        return False
