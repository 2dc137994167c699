"""Training specs name their mistakes, jobs have one identity, and a followed job is followed to its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core.dataset import DatasetURI
from tasks.core.errors import Invalid, Retryable, Stockout
from tasks.core.placement import Offer
from tasks.core.training import JobSpec, JobStatus, RunState, TrainingSpec, code_digest, run_job

OFFER = Offer("site", "jakarta", "ID", "host", spot=True)
DATA = DatasetURI("site", "raw", "flights")


def spec_data(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": "late",
        "command": ["python", "train.py"],
        "code_dir": "code",
        "requirements": {"accelerator": "none", "memory_gib": 4},
        "data": {"train": "train/", "holdout": "holdout/"},
        "parameters": {"rate": 0.1, "rounds": 20, "name": "a", "fast": True},
        "timeout_s": 60,
        "evaluation": {"label": "late", "thresholds": {"roc_auc": {"minimum": 0.7}}},
    }
    return data | changes


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    (tmp_path / "train.py").write_text("print('hello')")
    (tmp_path / "lib" / "more.py").write_text("x = 1")
    return tmp_path


def test_a_spec_is_read_from_yaml() -> None:
    spec = TrainingSpec.from_mapping(spec_data())
    assert (spec.name, spec.command, spec.timeout_s) == ("late", ("python", "train.py"), 60.0)
    assert (spec.train_path, spec.holdout_path) == ("train", "holdout")
    assert spec.requirements.accelerator is None
    assert spec.parameters == {"rate": 0.1, "rounds": 20, "name": "a", "fast": True}
    assert spec.evaluation.thresholds[0].minimum == 0.7


def test_the_demo_s_spec_loads() -> None:
    path = Path("examples/flights/training.yaml")
    spec = TrainingSpec.from_mapping(yaml.safe_load(path.read_text()), str(path))
    assert spec.evaluation.label == "late"
    assert (path.parent / spec.command[1]).is_file()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nmae": "x"}, "nmae is not known; did you mean 'name'"),
        ({"name": None}, "name is missing"),
        ({"name": "Late Flights"}, "name is 'Late Flights'; use lower-case letters"),
        ({"command": "python train.py"}, "command is a text; write a list"),
        ({"command": []}, "command is empty"),
        ({"evaluation": None}, "evaluation is missing"),
        ({"data": {"train": "../other"}}, "data.train is '../other'"),
        ({"data": {"train": "rows", "holdout": "rows/"}}, "are the same; hold other rows out"),
        ({"data": {"test": "x"}}, "data.test is not known"),
        ({"parameters": {"list": [1]}}, "parameters.list is not a plain value"),
        ({"parameters": {"db_password": "canary"}}, "parameters.db_password looks like a secret"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"requirements": {"gpus": 1}}, "requirements.gpus is not known"),
        ({"evaluation": {"label": "late"}}, "evaluation.thresholds is empty"),
    ],
)
def test_a_wrong_spec_names_the_key_and_never_the_value_of_a_secret(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid) as wrong:
        TrainingSpec.from_mapping(spec_data(**changes), "training.yaml")
    assert words in str(wrong.value)
    assert str(wrong.value).startswith("training.yaml")
    assert "canary" not in str(wrong.value)


def job(code: Path, **changes: Any) -> JobSpec:
    spec = TrainingSpec.from_mapping(spec_data(code_dir=str(code)))
    facts: dict[str, Any] = {"data": DATA, "data_digest": "d" * 64, "run_id": "run-1", "offer": OFFER}
    return spec.job(**(facts | changes))


def test_a_job_carries_the_spec_to_the_offer(code: Path) -> None:
    made = job(code)
    assert (made.sku, made.spot, made.attempt) == ("host", True, 1)
    assert json.loads(made.environment["LINTAS_PARAMETERS"]) == spec_data()["parameters"]
    assert made.environment["LINTAS_TRAIN_PATH"] == "train"
    assert made.code_digest == code_digest(code)


def test_two_equal_specs_are_one_job_and_every_difference_makes_another(code: Path) -> None:
    one = job(code)
    assert one == job(code)
    assert one.job_name == job(code).job_name
    others = [
        job(code, run_id="run-2"),
        job(code, data_digest="e" * 64),
        job(code, data=DatasetURI("site", "raw", "other")),
        job(code, offer=replace(OFFER, sku="other")),
        one.next_attempt(),
        replace(one, command=("python", "other.py")),
        replace(one, environment={}),
    ]
    assert len({made.job_name for made in (one, *others)}) == 1 + len(others)


def test_attempts_share_their_checkpoints_wherever_they_run_but_not_with_another_run(code: Path) -> None:
    one = job(code)
    moved = job(code, data=DatasetURI("aws", "training", "flights"), offer=Offer("aws", "us", "US", "p5"), attempt=2)
    assert moved.family == one.family
    assert job(code, run_id="run-2").family != one.family
    assert job(code, data_digest="e" * 64).family != one.family


def test_the_code_s_digest_is_of_its_content_alone(code: Path) -> None:
    before = code_digest(code)
    (code / ".git").mkdir()
    (code / ".git" / "HEAD").write_text("x")
    (code / ".env").write_text("SECRET=x")
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "train.pyc").write_text("x")
    (code / "train.py").touch()
    assert code_digest(code) == before
    (code / "lib" / "more.py").rename(code / "lib" / "other.py")
    assert code_digest(code) != before


def test_code_that_is_missing_empty_or_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="there is no directory"):
        code_digest(tmp_path / "none")
    (tmp_path / "code").mkdir()
    with pytest.raises(Invalid, match="is empty"):
        code_digest(tmp_path / "code")
    (tmp_path / "outside.py").write_text("x")
    (tmp_path / "code" / "link.py").symlink_to(tmp_path / "outside.py")
    with pytest.raises(Invalid, match="leads outside"):
        code_digest(tmp_path / "code")


@dataclass
class Script:
    """A trainer that plays back what a provider would say, one answer a poll."""

    answers: list[JobStatus | Exception]
    lines: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def submit(self, job: JobSpec) -> str:
        self.calls.append("submit")
        return "job-1"

    def poll(self, job_id: str) -> JobStatus:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def logs(self, job_id: str, *, after_line: int = 0) -> Iterator[str]:
        return iter(self.lines[after_line:])

    def cancel(self, job_id: str) -> None:
        self.calls.append("cancel")

    def fetch_output(self, job_id: str, into: Path) -> None:
        raise AssertionError("following a job does not fetch")


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def status(state: RunState, detail: str = "") -> JobStatus:
    return JobStatus("job-1", state, detail=detail)


JOB = JobSpec("late", ("true",), ".", "c", DATA, "d", "run-1")
UNREACHABLE = Retryable("site is unreachable")


def test_a_provider_that_is_away_for_a_while_is_asked_again() -> None:
    clock = Clock()
    script = Script([status(RunState.RUNNING), *[UNREACHABLE] * 5, status(RunState.SUCCEEDED)])
    assert run_job(script, JOB, poll_s=10, clock=clock, sleep=clock.sleep).state is RunState.SUCCEEDED
    assert script.calls == ["submit"]


def test_a_provider_that_stays_away_is_given_up_and_the_job_left_alone() -> None:
    clock = Clock()
    script = Script([status(RunState.RUNNING), UNREACHABLE])
    with pytest.raises(Retryable):
        run_job(script, JOB, poll_s=10, unreachable_s=60, clock=clock, sleep=clock.sleep)
    assert 60 < clock.now_s <= 90
    assert script.calls == ["submit"]


def test_an_interrupt_cancels_the_job_and_an_error_does_not() -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    script = Script([status(RunState.RUNNING)])
    with pytest.raises(KeyboardInterrupt):
        run_job(script, JOB, sleep=interrupted)
    assert script.calls == ["submit", "cancel"]

    def broken(_line: str) -> None:
        raise ValueError("the listener is broken")

    script = Script([status(RunState.RUNNING)], lines=["a line"])
    with pytest.raises(ValueError, match="listener"):
        run_job(script, JOB, on_log=broken, sleep=lambda _: None)
    assert script.calls == ["submit"]


def test_a_job_that_stays_queued_is_cancelled_and_counts_as_a_stockout() -> None:
    clock = Clock()
    script = Script([status(RunState.QUEUED)])
    ended = run_job(script, JOB, poll_s=10, queue_timeout_s=60, clock=clock, sleep=clock.sleep)
    assert (ended.state, ended.detail) == (RunState.STOCKOUT, "still queued after 60 s")
    assert script.calls == ["submit", "cancel"]


def test_a_job_that_runs_is_not_hurried_by_the_queue_s_timeout() -> None:
    clock = Clock()
    script = Script([status(RunState.QUEUED), *[status(RunState.RUNNING)] * 50, status(RunState.SUCCEEDED)])
    ended = run_job(script, JOB, poll_s=10, queue_timeout_s=60, clock=clock, sleep=clock.sleep)
    assert ended.state is RunState.SUCCEEDED


def test_changes_of_state_and_lines_are_told_once() -> None:
    running = status(RunState.RUNNING)
    script = Script([status(RunState.QUEUED), running, running, status(RunState.FAILED, "code 1")], lines=["a", "b"])
    told: list[str] = []
    lines: list[str] = []
    ended = run_job(
        script, JOB, on_log=lines.append, on_status=lambda now: told.append(now.state), sleep=lambda _: None
    )
    assert told == ["queued", "running", "failed"]
    assert lines == ["a", "b"]
    assert ended.detail == "code 1"


def test_a_stockout_that_is_known_at_once_reaches_the_caller() -> None:
    class Full(Script):
        def submit(self, job: JobSpec) -> str:
            raise Stockout("no capacity")

    with pytest.raises(Stockout):
        run_job(Full([]), JOB)
