"""The registry: the only importer of providers, and what one installation of Lintas is made of.

A provider is a folder under `tasks/providers/` whose package has a `PROVIDER`. There is no list of providers
anywhere else. What reads settings is loaded when an installation is opened: to know the providers takes none of it.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tasks.providers
from tasks.core.cloud import CloudConfig, Provider
from tasks.core.dataset import DatasetURI
from tasks.core.errors import Invalid
from tasks.core.placement import Offer, Prices, offers_from_catalog, prices_from_catalog
from tasks.core.plane.limits import Limits
from tasks.core.policy import Place, Purpose
from tasks.core.ports import EventSource, MirroringServer, Server, Store, Trainer
from tasks.core.privacy import Policy, VerdictKey
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.training import TrainingSpec
from tasks.records import Records

if TYPE_CHECKING:
    from tasks.settings import Settings

STAGING = "staging"
"""Name of the cloud that is this machine's own staging area: where treated copies wait to leave."""


@functools.cache
def providers() -> Mapping[str, Provider]:
    """Every provider, by its folder's name. Imports no SDK."""
    found: dict[str, Provider] = {}
    for module in pkgutil.iter_modules(tasks.providers.__path__):
        if module.ispkg and not module.name.startswith("_"):
            provider: Provider = importlib.import_module(f"tasks.providers.{module.name}").PROVIDER
            found[provider.name] = provider
    return found


@dataclass(frozen=True, eq=False)
class Installation:
    """One installation: its settings, its clouds and its records. Openers build a client once a process."""

    settings: Settings

    def cloud(self, name: str) -> CloudConfig:
        """The configured cloud. Raises `Invalid` when there is none of this name or its provider is unknown."""
        if name == STAGING:
            root = self.settings.state_dir / STAGING
            root.mkdir(parents=True, exist_ok=True)
            return CloudConfig(STAGING, "onprem", options={"root": str(root)})
        cloud = self.settings.cloud(name)
        if cloud.provider not in providers():
            raise Invalid(
                f"clouds.{name}.provider is '{cloud.provider}', which Lintas does not know",
                f"use one of {', '.join(providers())}",
            )
        return cloud

    @property
    def limits(self) -> Limits:
        """What a move may take of the network and of the stores."""
        mover = self.settings.mover
        return Limits(mover.limit_mb_per_s, mover.limit_requests_per_s)

    def provider(self, cloud: str) -> Provider:
        """The provider of a configured cloud."""
        return providers()[self.cloud(cloud).provider]

    def parse(self, text: str) -> DatasetURI:
        """Read a dataset URI and check that its cloud is configured. Raises `Invalid` otherwise."""
        uri = DatasetURI.parse(text)
        self.cloud(uri.cloud)
        return uri

    @functools.cache  # noqa: B019  (one installation lives as long as its process)
    def store(self, cloud: str, bucket: str) -> Store:
        """The store of a bucket."""
        return self.provider(cloud).open_store(self.cloud(cloud), bucket)

    def store_of(self, uri: DatasetURI) -> Store:
        """The store of the bucket that a dataset is in."""
        return self.store(uri.cloud, uri.bucket)

    def trainer(self, cloud: str) -> Trainer:
        """The cloud's training service. Raises `Invalid` when its provider has none."""
        opener = self.provider(cloud).open_trainer
        if opener is None:
            raise Invalid(f"'{cloud}' cannot run training jobs", "choose another cloud: 'lintas offers' lists them")
        return opener(self.cloud(cloud))

    def server(self, cloud: str) -> Server:
        """The cloud's serving service. Raises `Invalid` when its provider has none."""
        opener = self.provider(cloud).open_server
        if opener is None:
            able = [name for name in self.settings.clouds if self.provider(name).open_server is not None]
            raise Invalid(f"'{cloud}' cannot serve models", f"serve on one of {', '.join(able) or 'no cloud yet'}")
        return opener(self.cloud(cloud))

    def mirroring_server(self, cloud: str) -> MirroringServer:
        """The cloud's serving service, to mirror requests. Raises `Invalid` when its provider cannot."""
        opener = self.provider(cloud).open_mirror
        if opener is None:
            able = [name for name in self.settings.clouds if self.provider(name).open_mirror is not None]
            raise Invalid(f"'{cloud}' cannot mirror requests", f"mirror on one of {', '.join(able) or 'no cloud yet'}")
        return opener(self.cloud(cloud))

    def event_clouds(self) -> tuple[str, ...]:
        """The clouds that are set up to tell of their objects' creation."""
        return tuple(name for name in self.settings.clouds if self.provider(name).tells_events(self.cloud(name)))

    def event_source(self, cloud: str) -> EventSource:
        """The events of a cloud, opened anew. Raises `Invalid` when its provider has none, or as its opener does."""
        opener = self.provider(cloud).open_events
        if opener is None:
            raise Invalid(f"'{cloud}' tells no events", "start flows by a schedule or by hand")
        return opener(self.cloud(cloud), self.settings.state_dir / "events" / cloud)

    def catalog(self, cloud: str) -> Mapping[str, Any]:
        """The catalogue of a cloud's provider: offers, prices with their sources, limits and quirks."""
        from tasks.settings import read_yaml

        return read_yaml(self.provider(cloud).catalog)

    def offers(self) -> tuple[Offer, ...]:
        """What all configured clouds could run."""
        found: list[Offer] = []
        for name in self.settings.clouds:
            cloud = self.cloud(name)
            found += offers_from_catalog(self.catalog(name), cloud, self.provider(name).can_train(cloud))
        return tuple(found)

    def prices(self, cloud: str) -> Prices:
        """What a cloud charges for egress and storage, by its provider's catalogue."""
        return prices_from_catalog(self.catalog(cloud), self.cloud(cloud))

    @functools.cached_property
    def records(self) -> Records:
        """The journal, the releases and the audit log."""
        return Records(self.settings.state_dir / "records.sqlite")

    def scratch(self) -> Path:
        """A directory for files that live no longer than one step."""
        folder = self.settings.state_dir / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @functools.cached_property
    def verdict_key(self) -> VerdictKey:
        """The key that verdicts are signed with."""
        from tasks.settings import resolve_secret

        return VerdictKey(self.settings.gate.signing_key, resolve_secret(self.settings.gate.signing_key).encode())

    @functools.cached_property
    def pseudonym_key(self) -> PseudonymKey:
        """The key that pseudonyms are made with."""
        return _pseudonym_key(self.settings.gate.pseudonym_key)

    def pseudonym_keys(self) -> tuple[PseudonymKey, ...]:
        """The key that pseudonyms are made with, then those that were retired. Raises `Denied` if one is missing."""
        return self.pseudonym_key, *map(_pseudonym_key, self.settings.gate.retired_pseudonym_keys)

    def policy_name(self, named: str) -> str:
        """The policy that somebody named, or else the configuration's. Raises `Invalid` when neither names one."""
        name = named or self.settings.gate.policy
        if not name:
            raise Invalid(
                "no policy is named, so nothing can be cleared",
                "name one for this run (--policy), or for all as gate.policy in lintas.yaml",
            )
        return name

    def policy(self, name: str) -> Policy:
        """The policy of this name under `policies_dir`, or at this path. Raises `Invalid` or `NotFound`."""
        from tasks.policies import find_policy, read_policy

        return read_policy(find_policy(name, self.settings.policies_dir))

    def place(self, cloud: str, purpose: Purpose = "storage", source: DatasetURI | str = "") -> Place:
        """A configured cloud as policies see it.

        Args:
            cloud: Its name.
            purpose: What data would be there for.
            source: The dataset that would go there; empty for any.
        """
        found = self.cloud(cloud)
        return Place(found.name, found.jurisdiction, found.provider, found.region, purpose, str(source))


def training_spec(path: Path) -> TrainingSpec:
    """The training spec in a YAML file; its `code_dir` is relative to the file."""
    from tasks.settings import read_yaml

    data = dict(read_yaml(path))
    data["code_dir"] = str((path.parent / str(data.get("code_dir", "."))).resolve())
    return TrainingSpec.from_mapping(data, str(path))


@functools.cache
def installation() -> Installation:
    """The installation that the configuration of this process describes."""
    from tasks.settings import load_settings

    return Installation(load_settings())


def _pseudonym_key(reference: str) -> PseudonymKey:
    from tasks.settings import resolve_secret

    return PseudonymKey(reference, resolve_secret(reference).encode())
