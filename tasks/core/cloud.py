"""A cloud as it is configured, and a provider as it presents itself.

`lintas.yaml` names clouds; each has a provider (the folder under `tasks/providers/` that speaks to it), so that two
accounts or two sites of one provider are simply two clouds. Secrets are references until the moment of use.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from tasks.core.errors import Invalid, LintasError

if TYPE_CHECKING:
    from tasks.core.ports import EventSource, MirroringServer, Server, Store, Trainer

_THIS_MACHINE = re.compile(r"localhost|127(\.\d+){3}|::1")


@dataclass(frozen=True, slots=True)
class Secret:
    """A reference to a secret (`env:NAME`, `file:PATH`, `block:NAME`) and the way to resolve it.

    Neither `repr` nor `str` nor pickling shows more than the reference.
    """

    reference: str
    resolve: Callable[[str], str] = field(repr=False, compare=False)

    def reveal(self) -> str:
        """The secret itself, read now. Raises `Denied` when the reference leads nowhere."""
        return self.resolve(self.reference)

    def __str__(self) -> str:
        return f"<secret {self.reference}>"


@dataclass(frozen=True, slots=True)
class BucketConfig:
    """What is particular to one bucket of a cloud.

    Args:
        encryption_key: The customer's key that what Lintas writes is encrypted with, in the provider's words; empty
            leaves it to the bucket's own default.
        requester_pays: Whether requests to it are charged to whoever asks, as its owner wants it.
        storage_classes: The store's own class by `tasks.core.attributes.TIERS`, before those of the catalogue.
    """

    encryption_key: str = ""
    requester_pays: bool = False
    storage_classes: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class CloudConfig:
    """One cloud of `lintas.yaml`.

    Args:
        name: Its name: the scheme of its URIs.
        provider: The provider's folder.
        region: Where it is, in the provider's words.
        jurisdiction: Where it is by law, in the policy's words (ISO 3166 country or `EU`).
        endpoints: URL by role (`objects`, `training`, `serving`, `events`); a role that is absent means the
            provider's public endpoint.
        credentials: Secret by name, in the provider's words.
        options: Whatever else the provider's folder documents.
        buckets: What is particular to single buckets, by their names.
    """

    name: str
    provider: str
    region: str = ""
    jurisdiction: str = ""
    endpoints: Mapping[str, str] = field(default_factory=dict[str, str])
    credentials: Mapping[str, Secret] = field(default_factory=dict[str, Secret])
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    buckets: Mapping[str, BucketConfig] = field(default_factory=dict[str, BucketConfig])

    def bucket(self, name: str) -> BucketConfig:
        """What is particular to a bucket; nothing for one that is not named."""
        return self.buckets.get(name, BucketConfig())

    def option(self, name: str) -> str:
        """A required option. Raises `Invalid` naming the key when it is absent."""
        if name not in self.options:
            raise Invalid(f"clouds.{self.name}.options.{name} is missing", "set it in lintas.yaml")
        return self.options[name]

    def endpoint(self, role: str) -> str:
        """A required endpoint. Raises `Invalid` naming the key when it is absent."""
        if role not in self.endpoints:
            raise Invalid(f"clouds.{self.name}.endpoints.{role} is missing", "set it in lintas.yaml")
        return self.endpoints[role]

    def endpoint_or_public(self, role: str) -> str | None:
        """Where a role is played: the configured URL, or None for the provider's public endpoint.

        A cloud of which anything is on this machine is a stand-in, whose keys no public service is to see: there every
        role that is used must be named.

        Raises:
            Invalid: The role has no URL, and another role of this cloud is on this machine.
        """
        if url := self.endpoints.get(role):
            return url
        near = next((other for other, url in self.endpoints.items() if _is_this_machine(url)), None)
        if near is not None:
            raise Invalid(
                f"clouds.{self.name}.endpoints.{role} is missing, and its {near} are on this machine, so that the"
                " public service is not asked",
                f"name the URL of the {role} endpoint, or start a twin that has one with 'lintas up'",
            )
        return None


def _is_this_machine(url: str) -> bool:
    return _THIS_MACHINE.fullmatch(urlsplit(url).hostname or "") is not None


class Unseen(LintasError):
    """Nothing that only reads shows whether a permission is granted: it is neither seen nor missing.

    Only `Probe.look` raises it. The text says why; the caller reports it as such and goes on.
    """


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that an account must allow, and a read-only call that shows whether it does.

    Args:
        permission: Its name in the provider's words, such as `s3:ListBucket`.
        needed_for: What of Lintas needs it: `objects`, `training`, `serving`, `events` or `everything`.
        look: Makes the call and says in one line what was seen. `Denied` means that the permission is missing;
            `NotFound` that the thing looked for is not there, which shows that the permission is; `Unseen` that no
            call that only reads can tell; any other error is its own finding.
    """

    permission: str
    needed_for: str
    look: Callable[[], str] = field(repr=False, compare=False)


class Probes(Protocol):
    """What an account must allow for a cloud; `trains`: training and serving too."""

    def __call__(self, config: CloudConfig, /, *, trains: bool) -> Iterable[Probe]: ...


def lazily(name: str) -> Callable[..., Any]:
    """A function whose module, and with it an SDK, is imported only when it is called.

    Args:
        name: `package.module:function`.
    """
    module, _, function = name.partition(":")

    def call(*args: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(module), function)(*args, **named)

    return call


@dataclass(frozen=True, slots=True)
class Provider:
    """What a provider's folder offers; a capability that it lacks is None. Openers are given by `lazily`.

    Args:
        name: The folder's name.
        open_store: Opens a bucket of a cloud.
        open_trainer: Opens the cloud's training service.
        open_server: Opens the cloud's serving service.
        open_mirror: Opens the cloud's serving service where it can also mirror requests.
        open_events: Opens the cloud's events; what it must remember between two runs it keeps in the directory given.
        training_needs: Options without which a cloud of this provider has no training service.
        events_need: Options without which nobody asks a cloud of this provider for events.
        probes: What an account must allow, to be looked at one by one by `lintas doctor --cloud`.
        catalog: Its `catalog.yaml`: offers with prices and their sources, egress prices, limits and quirks.
    """

    name: str
    open_store: Callable[[CloudConfig, str], Store]
    catalog: Path
    open_trainer: Callable[[CloudConfig], Trainer] | None = None
    open_server: Callable[[CloudConfig], Server] | None = None
    open_mirror: Callable[[CloudConfig], MirroringServer] | None = None
    open_events: Callable[[CloudConfig, Path], EventSource] | None = None
    training_needs: tuple[str, ...] = ()
    events_need: tuple[str, ...] = ()
    probes: Probes | None = None

    def can_train(self, cloud: CloudConfig) -> bool:
        """Whether this cloud is set up for training jobs."""
        return self.open_trainer is not None and all(need in cloud.options for need in self.training_needs)

    def tells_events(self, cloud: CloudConfig) -> bool:
        """Whether this cloud is set up to tell of its objects' creation."""
        return self.open_events is not None and all(need in cloud.options for need in self.events_need)
