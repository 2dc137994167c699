"""Audit: is the log of decisions whole, and do the datasets that were moved still hold what their receipts say?"""

from prefect import flow

from tasks.auditing import latest_receipts, verify_dataset, verify_log
from tasks.core.errors import IntegrityError


@flow(name="audit")
def audit(reread: bool = False) -> int:
    """Verify the audit log's chain and every dataset that a receipt speaks of; returns how many datasets hold.

    Args:
        reread: Read every byte of every dataset again instead of trusting versions that are known.
    """
    verify_log()
    receipts = latest_receipts()
    damaged = [uri for uri, digest in receipts.items() if not verify_dataset(uri, digest, reread=reread)]
    if damaged:
        raise IntegrityError(
            f"{len(damaged)} datasets are not what their receipts say: {', '.join(damaged)}", "move them again"
        )
    return len(receipts)
