"""Cloud Logging, as far as logs of custom jobs go: `entries.list`.

Source: https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list. A container's line is an entry of the
resource `ml_job` with the task's name in its labels.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from deployments.local.vertex_ai.errors import invalid
from deployments.local.vertex_ai.jobs import Jobs

_CLAUSES = {
    "resource.type": "=",
    "resource.labels.job_id": "=",
    "resource.labels.task_name": "=",
    "timestamp": ">=",
}
_FIELDS = {"resourceNames", "filter", "orderBy", "pageSize", "pageToken"}
_TASK = "workerpool0-0"
_LARGEST_PAGE = 1000


def list_entries(jobs: Jobs, project: str, body: object) -> dict[str, Any]:
    """A page of the entries that a filter lets through, oldest first.

    Raises:
        Refused: A field or a part of the filter is none that the double knows.
    """
    if not isinstance(body, dict) or set(body) - _FIELDS:
        stray = min(set(body) - _FIELDS) if isinstance(body, dict) else "body"
        raise invalid(f'Invalid JSON payload received. Unknown name "{stray}": Cannot find field.')
    if body.get("resourceNames") != [f"projects/{project}"]:
        raise invalid("resource_names must name the project.")
    if body.get("orderBy") != "timestamp asc":
        raise invalid("The double lists entries by 'timestamp asc' only.")
    wanted = _clauses(str(body.get("filter", "")))
    if wanted.get("resource.type") != "ml_job" or "resource.labels.job_id" not in wanted:
        raise invalid("The double knows entries of one ml_job only.")
    job_id = wanted["resource.labels.job_id"]
    lines = jobs.log(job_id) if wanted.get("resource.labels.task_name", _TASK) == _TASK else []
    since = datetime.fromisoformat(wanted["timestamp"]) if "timestamp" in wanted else None
    found = [
        _entry(project, job_id, number, moment, line)
        for number, (moment, line) in enumerate(lines)
        if since is None or datetime.fromisoformat(moment) >= since
    ]
    begin, size = int(body.get("pageToken") or 0), min(int(body.get("pageSize") or 50), _LARGEST_PAGE)
    answer: dict[str, Any] = {"entries": found[begin : begin + size]} if found else {}
    if begin + size < len(found):
        answer["nextPageToken"] = str(begin + size)
    return answer


def _clauses(text: str) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for part in re.split(r"\s+AND\s+|\n", text):
        found = re.fullmatch(r'\s*([\w.]+)\s*(>=|=)\s*"([^"]*)"\s*', part)
        if found is None or _CLAUSES.get(found[1]) != found[2]:
            raise invalid(f"Unparseable filter: {part}")
        wanted[found[1]] = found[3]
    return wanted


def _entry(project: str, job_id: str, number: int, moment: str, line: str) -> dict[str, Any]:
    return {
        "insertId": f"{job_id[-8:]}{number:010d}",
        "logName": f"projects/{project}/logs/{_TASK}",
        "resource": {"type": "ml_job", "labels": {"job_id": job_id, "project_id": project, "task_name": _TASK}},
        "timestamp": moment,
        "receiveTimestamp": moment,
        "severity": "INFO",
        "jsonPayload": {"message": line, "levelname": "INFO"},
    }
