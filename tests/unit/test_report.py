"""The page of a lifecycle: everything is escaped, nothing is remote, and it renders without a champion."""

from __future__ import annotations

from tasks.report import render

ENDPOINT = {"provider": "onprem", "url": "http://127.0.0.1:1/x", "weight": 100, "digest": "d" * 64, "healthy": True}
OFFER = {
    "provider": "onprem",
    "sku": "host",
    "region": "jakarta",
    "accelerator": "",
    "count": 0,
    "spot": False,
    "price_usd_per_hour": 0.1,
}
FACTS = {
    "name": "r1",
    "flow_run_id": None,
    "elapsed_s": 1.0,
    "moved": [
        {
            "source": "aws://raw/<b>x</b>",
            "destination": "google://lake/x",
            "objects": 2,
            "objects_sent": 1,
            "bytes_sent": 1234567,
            "digest": "a" * 64,
            "source_digest": "b" * 64,
            "treated": True,
            "verdict": "cleared",
        }
    ],
    "findings": [
        {
            "entity": "EMAIL_ADDRESS",
            "path": "*.parquet",
            "column": "<script>alert(1)</script>",
            "count": 3,
            "share": 0.5,
            "confidence": 1.0,
            "why": "its written form",
            "treatment": "tokenise",
        }
    ],
    "placement": {
        "chosen": OFFER | {"total_usd": 0.01},
        "rejected": [OFFER | {"price_usd_per_hour": None, "reason": "price unknown"}],
    },
    "trained": {"metrics": {"roc_auc": 0.9}, "run_id": "run", "job_id": "job", "digest": "c" * 64},
    "champion_metrics": {},
    "release": {"model": "m", "version": "1", "state": "live", "endpoints": [ENDPOINT]},
}


def test_the_page_tells_the_story_and_escapes_what_others_wrote() -> None:
    page = render(FACTS)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "1.2 MB" in page
    assert "first model" in page
    assert "price unknown" in page
    assert "https://" not in page
