"""Release what the privacy gate holds back: a person says who and why, and the audit log keeps it."""

from prefect import flow

from flows.forms import Dataset, Words
from tasks.quarantine import release_held


@flow(name="release-quarantined", flow_run_name="release of {dataset} for {destination}")
def release_quarantined(dataset: Dataset, destination: Dataset, reason: Words, by: Words, paths: list[str] = []) -> int:
    """Let objects that are held in quarantine leave with the next move; returns how many.

    A release is for the objects as they are now and for the policy of now: change either and they are held again.

    Args:
        dataset: The dataset that they are part of, as cloud://bucket/prefix.
        destination: Where they may go, as the quarantine list names it.
        reason: Why they may go. The audit log keeps it, so name nobody in it.
        by: Who releases them.
        paths: Only objects with these paths; * stands for any text. All that is held without any.
    """
    return len(release_held(dataset, destination, reason, by, paths))
