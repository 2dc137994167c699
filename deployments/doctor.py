"""The doctor: looks at the configuration, the services and the reach of every cloud, and changes nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tasks.core.cloud import Unseen
from tasks.core.errors import Denied, LintasError, NotFound
from tasks.registry import Installation, installation, providers
from tasks.settings import load_settings, resolve_secret

_PROBE_BUCKET = "lintas-doctor"
_LEAST_FREE_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what, whether it is well, what is wrong or was seen, and whether it can be seen.

    What cannot be seen is not wrong, and not known to be well either.
    """

    what: str
    ok: bool
    detail: str
    seen: bool = True


def examine() -> Iterator[Check]:
    """Look at one thing after another; what cannot be looked at for want of a configuration ends the list."""
    try:
        settings = load_settings()
    except LintasError as error:
        yield Check("configuration", False, str(error))
        return
    yield Check("configuration", True, f"{len(settings.clouds)} clouds")
    here = installation()
    for name, cloud in settings.clouds.items():
        for key, reference in cloud.credentials.items():
            yield _check(f"clouds.{name}.credentials.{key}", lambda r=reference: resolve_secret(r) and r)
        yield _check(f"clouds.{name}", lambda n=name: _capabilities(here, n))
        yield _check(f"{name}: objects", lambda n=name: _reach(here, n))
        if cloud.endpoints.get("serving") and here.provider(name).open_server is not None:
            yield _check(f"{name}: serving", lambda n=name: str(here.server(n).describe(_PROBE_BUCKET) or "answers"))
    for key in ("signing_key", "pseudonym_key"):
        reference = getattr(settings.gate, key)
        yield _check(f"gate.{key}", lambda r=reference: resolve_secret(r) and r)
    yield _check("Prefect", lambda: _answers(f"{settings.services.prefect_api_url}/health"))
    yield _check("MLflow", lambda: _answers(f"{settings.services.mlflow_url}/health"))
    yield _check("audit log", lambda: f"head {here.records.audit.head().sequence}")
    yield _disk(here)
    yield native_code()
    for path in sorted(settings.policies_dir.glob("*.yaml")):
        yield _check(f"policy {path.stem}", lambda p=path: here.policy(str(p)).digest[:16])


def examine_cloud(name: str) -> Iterator[Check]:
    """Look at one account: every permission that Lintas needs there, one by one, with read-only calls."""
    here = installation()
    cloud, provider = here.cloud(name), here.provider(name)
    for key, secret in cloud.credentials.items():
        yield _check(f"credentials.{key}", lambda s=secret: (s.reveal() and s.reference) or s.reference)
    yield _check("objects", lambda: _reach(here, name))
    if provider.probes is None:
        return
    for probe in provider.probes(cloud, trains=provider.can_train(cloud)):
        what = f"{probe.permission} (for {probe.needed_for})"
        try:
            yield Check(what, True, probe.look())
        except Unseen as error:
            yield Check(what, True, str(error), seen=False)
        except NotFound as error:
            yield Check(what, True, f"allowed; {error.what}")
        except Denied as error:
            yield Check(what, False, f"the permission {probe.permission} is missing: {error}")
        except LintasError as error:
            yield Check(what, False, str(error))


def native_code() -> Check:
    """Whether the gate's kernel and the mover's exchanges run here as compiled code; without it all works, slower."""
    from tasks.core.detectors.native import kernel
    from tasks.core.plane.exchanges import loaded

    missing = [
        name for name, there in (("the gate's kernel", kernel()), ("the mover's exchanges", loaded())) if not there
    ]
    if not missing:
        return Check("native code", True, "the gate's kernel and the mover's exchanges are compiled")
    if os.environ.get("LINTAS_NATIVE") == "0":
        return Check("native code", True, "turned off by LINTAS_NATIVE=0", seen=False)
    mend = "install a C compiler (cc, gcc or clang), and see that ~/.cache/lintas is this user's alone"
    return Check("native code", True, f"Python does the work of {' and '.join(missing)}, slower: {mend}", seen=False)


def _check(what: str, look: Callable[[], str]) -> Check:
    try:
        return Check(what, True, look())
    except LintasError as error:
        return Check(what, False, str(error))


def _capabilities(here: Installation, name: str) -> str:
    provider = providers()[here.cloud(name).provider]
    able = {
        "objects": True,
        "training": provider.open_trainer is not None,
        "serving": provider.open_server is not None,
        "events": provider.open_events is not None,
    }
    return ", ".join(capability for capability, has in able.items() if has)


def _reach(here: Installation, name: str) -> str:
    """Listing a bucket that need not exist shows reach and credentials and changes nothing."""
    try:
        next(iter(here.store(name, _PROBE_BUCKET).list("")), None)
    except NotFound:
        return "reachable, credentials accepted"
    return "reachable"


def _answers(url: str) -> str:
    import httpx

    from tasks.core.errors import Invalid, Retryable

    if not url.startswith("http"):
        raise Invalid("its URL is not configured", "set it under services in lintas.yaml")
    try:
        status = httpx.get(url, timeout=5).status_code
    except httpx.HTTPError as error:
        raise Retryable(f"{url} does not answer", "start it, or correct the URL in lintas.yaml") from error
    if status >= 400:
        raise Retryable(f"{url} answers {status}", "see its log")
    return "answers"


def _disk(here: Installation) -> Check:
    folder = here.settings.state_dir
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    return Check("disk", free > _LEAST_FREE_BYTES, f"{free / 1e9:.1f} GB free at the state directory")
