"""Settings: the only reader of `lintas.yaml`, of the environment, and of the YAML files that users write.

`lintas.yaml` is looked for in this order: the path given, `LINTAS_CONFIG`, `./lintas.yaml`, and the local twin's own
(`.lintas/local/lintas.yaml`, while `lintas up` runs). A key can be overridden by `LINTAS_` and its path in capitals
with double underscores: `LINTAS_SERVICES__MLFLOW_URL`. Secrets stand in it by reference, never by value:

| reference | where the secret is |
| --- | --- |
| `env:NAME` | environment variable NAME |
| `file:PATH` | the file's first line |
| `block:TYPE/NAME` or `block:TYPE/NAME#FIELD` | a Prefect block, such as `block:secret/azure-key` |
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, YamlConfigSettingsSource

from tasks.core.cloud import BucketConfig, CloudConfig, Secret
from tasks.core.errors import Denied, Invalid, NotFound

LOCAL_CONFIG = Path(".lintas/local/lintas.yaml")
_SCHEMES = ("env:", "file:", "block:")


def _is_reference(value: str) -> str:
    if not value.startswith(_SCHEMES):
        # The value itself is not repeated: somebody may have pasted a secret here.
        raise ValueError("must be a reference (env:NAME, file:PATH or block:TYPE/NAME), never the secret itself")
    return value


SecretReference = Annotated[str, AfterValidator(_is_reference)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class BucketSettings(_Section):
    """One bucket under `clouds.NAME.buckets:`; see `tasks.core.cloud.BucketConfig` for the meaning of the keys."""

    encryption_key: str = ""
    requester_pays: bool = False
    storage_classes: dict[Literal["hot", "cool", "cold", "archive"], str] = {}


class CloudSettings(_Section):
    """One cloud under `clouds:`; see `tasks.core.cloud.CloudConfig` for the meaning of the keys."""

    provider: str
    region: str = ""
    jurisdiction: str = ""
    endpoints: dict[str, str] = {}
    credentials: dict[str, SecretReference] = {}
    options: dict[str, str | int | float | bool] = {}
    buckets: dict[str, BucketSettings] = {}


class WebhookSettings(_Section):
    """Where the event bridge listens for the model registry: on `listen`, reached from MLflow at `url`."""

    listen: str
    url: str = ""
    secret: SecretReference


class ServiceSettings(_Section):
    """Where Prefect and MLflow are."""

    prefect_api_url: str = ""
    prefect_ui_url: str = ""
    mlflow_url: str = ""
    registry_webhook: WebhookSettings | None = None


class ShardSettings(_Section):
    """How large the shards of a move are, how many are carried at once, and by what; see `tasks.shards`."""

    runner: Literal["threads", "processes", "dask"] = "threads"
    scheduler: str = ""
    at_once: Annotated[int, Field(ge=1)] = 1
    objects: Annotated[int, Field(ge=1)] | None = None
    gib: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _can_run(self) -> ShardSettings:
        if (self.runner == "dask") != bool(self.scheduler):
            raise ValueError("the runner dask and the address of its scheduler (tcp://HOST:8786) belong together")
        if self.runner == "dask" and importlib.util.find_spec("prefect_dask") is None:
            raise ValueError("the runner dask needs a package that is not installed (pip install 'lintas[dask]')")
        return self


class MoverSettings(_Section):
    """What a move may take; see `tasks.core.plane.limits.Limits` for the meaning of the keys."""

    shards: ShardSettings = ShardSettings()
    limit_mb_per_s: Annotated[float, Field(gt=0)] | None = None
    limit_requests_per_s: Annotated[float, Field(gt=0)] | None = None


class GateSettings(_Section):
    """The privacy gate's keys: one signs verdicts, one makes pseudonyms, those before it open what they encrypted.

    `data_docs` says whether every verdict has Data Docs written, `policy` which policy counts where none is named.
    """

    signing_key: SecretReference
    pseudonym_key: SecretReference
    retired_pseudonym_keys: tuple[SecretReference, ...] = ()
    data_docs: bool = True
    policy: str = ""


class Settings(BaseSettings):
    """Everything that `lintas.yaml` may say."""

    model_config = SettingsConfigDict(
        env_prefix="LINTAS_", env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )
    _file: ClassVar[Path] = Path("lintas.yaml")

    clouds: dict[str, CloudSettings] = Field(min_length=1)
    services: ServiceSettings = ServiceSettings()
    mover: MoverSettings = MoverSettings()
    gate: GateSettings
    state_dir: Path = Path(".lintas/state")
    policies_dir: Path = Path("examples/policies")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the file."""
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls, yaml_file=cls._file)

    def cloud(self, name: str) -> CloudConfig:
        """The cloud of this name, with secrets that are read only when used. Raises `Invalid` when there is none."""
        if name not in self.clouds:
            raise Invalid(
                f"'{name}' is not a cloud of the configuration",
                f"use one of {', '.join(self.clouds)}{_close(name, self.clouds)}",
            )
        found = self.clouds[name]
        return CloudConfig(
            name=name,
            provider=found.provider,
            region=found.region,
            jurisdiction=found.jurisdiction,
            endpoints=found.endpoints,
            credentials={key: Secret(reference, resolve_secret) for key, reference in found.credentials.items()},
            options={key: str(value) for key, value in found.options.items()},
            buckets={key: BucketConfig(**bucket.model_dump()) for key, bucket in found.buckets.items()},
        )


def find_config(path: Path | None = None) -> Path:
    """The `lintas.yaml` that counts here. Raises `Invalid` saying what to do when there is none."""
    if path is not None:
        if not path.is_file():
            raise Invalid(f"there is no configuration at {path}", "correct the path given with --config")
        return path
    named = os.environ.get("LINTAS_CONFIG")
    if named:
        return find_config(Path(named))
    for candidate in (Path("lintas.yaml"), LOCAL_CONFIG):
        if candidate.is_file():
            return candidate
    raise Invalid(
        "there is no lintas.yaml here", "run 'lintas up' for the local twin, or write one (docs/real-clouds.md)"
    )


def load_settings(path: Path | None = None) -> Settings:
    """Read and check the configuration. Raises `Invalid` with the key, what is wrong and the mend."""
    found = find_config(path)
    data = read_yaml(found)
    bound = type("BoundSettings", (Settings,), {"_file": found, "__module__": __name__})
    try:
        settings: Settings = cast("Any", bound)()
    except ValidationError as error:
        raise Invalid(*_explain(error, found, data)) from None
    return settings


def read_yaml(path: Path) -> Mapping[str, Any]:
    """A YAML file that holds a mapping. Raises `NotFound` or `Invalid` naming the file and the place."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", "correct the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(
            f"{path} cannot be read as UTF-8 text ({type(error).__name__})", "check the file and its rights"
        ) from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        raise Invalid(f"{path}{place} is not YAML", "correct its indentation and quotes") from None
    if not isinstance(data, dict):
        raise Invalid(f"{path} does not hold a mapping of keys", "start from the example in examples/")
    return data


def resolve_secret(reference: str) -> str:
    """The secret that a reference names. Raises `Denied` naming the reference, never the secret."""
    scheme, _, rest = reference.partition(":")
    if scheme == "env":
        value = os.environ.get(rest)
        if not value:
            raise Denied(
                f"the environment variable {rest} is not set", "set it to the secret that lintas.yaml refers to"
            )
        return value
    if scheme == "file":
        try:
            return Path(rest).expanduser().read_text(encoding="utf-8").split("\n", 1)[0].strip()
        except (OSError, UnicodeDecodeError):
            raise Denied(f"the secret file {rest} cannot be read", "create it, readable by this user alone") from None
    if scheme == "block":
        return _block_secret(rest)
    raise Denied(f"'{scheme}:' is no kind of secret reference", "use env:, file: or block:")


def _block_secret(reference: str) -> str:
    from prefect.blocks.core import Block

    name, _, field = reference.partition("#")
    try:
        block = Block.load(name)
    except (ValueError, RuntimeError):
        raise Denied(f"there is no Prefect block '{name}'", "create it in the Prefect UI under Blocks") from None
    value = getattr(block, field) if field else block.get()  # pyright: ignore
    return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)


def _explain(error: ValidationError, file: Path, data: Mapping[str, Any]) -> tuple[str, str]:
    """One sentence for the first thing that is wrong: the key, the type that stands there, what should."""
    first = error.errors(include_input=False, include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    value: Any = data
    for part in first["loc"]:
        value = value.get(part) if isinstance(value, dict) else None
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"])
        hint = _close(str(first["loc"][-1]), known)
        return f"{file}: '{key}' is not a key that Lintas knows{more}", f"remove it or correct its name{hint}"
    if first["type"] == "missing":
        return f"{file}: '{key}' is missing{more}", "add it (docs/configuration.md lists every key)"
    wrong = first["msg"].removeprefix("Value error, ")
    stands = "" if first["type"] == "value_error" else f", and a {type(value).__name__} stands there"
    return (
        f"{file}: '{key}': {wrong[0].lower()}{wrong[1:]}{stands}{more}",
        "correct it (docs/configuration.md lists every key)",
    )


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {"clouds": CloudSettings, "services": ServiceSettings, "gate": GateSettings}
    model = sections.get(str(location[0]), Settings) if len(location) > 1 else Settings
    return list(model.model_fields)


def _close(word: str, known: Mapping[str, Any] | list[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
