"""Reading policies: their files, the policies that they extend, and the line of every key.

`extends` names other policy files, beside this one or by path. What a policy and all those it extends say together is
decided in `tasks.core.policy`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from tasks.core.errors import Invalid, NotFound
from tasks.core.policy import Policy
from tasks.core.policy_loading import load_policy
from tasks.settings import read_yaml

_SUFFIXES = (".yaml", ".yml")


def policy_file(name: str, beside: Path) -> Path:
    """The file of a policy: a name without suffix is looked for in a directory, anything else is a path."""
    path = Path(name)
    if path.suffix not in _SUFFIXES and path.parent == Path():
        return beside / f"{name}.yaml"
    return path


def find_policy(name: str, beside: Path) -> Path:
    """The file of a policy that somebody named; see `policy_file`.

    Raises:
        NotFound: The directory has no policy of this name; the text says which it has.
    """
    path = policy_file(name, beside)
    if path.is_file() or path == Path(name):
        return path
    others = ", ".join(sorted(each.stem for each in beside.glob(f"*{_SUFFIXES[0]}")))
    mend = f"use one of {others}, or give a file's path" if others else "write one there, or give a file's path"
    raise NotFound(f"there is no policy '{name}' in {beside}", mend)


def read_policy(path: Path) -> Policy:
    """A policy with all that it extends.

    Raises:
        Invalid: A key is unknown, missing or wrong, or a policy extends itself; the text names file, key and mend.
        NotFound: A file is not there.
    """
    return _read(path, ())


def _read(path: Path, above: tuple[Path, ...]) -> Policy:
    here = path.resolve()
    if here in above:
        raise Invalid(f"{path}: 'extends' leads back to itself", "let a policy extend only more general ones")
    data = read_yaml(path)
    named = data.get("extends", [])
    if not isinstance(named, list) or not all(isinstance(name, str) and name for name in named):
        raise Invalid(f"{path}: 'extends' is not a list of policies", "write 'extends: [company]'")
    bases = [_read(_beside(path, name), (*above, here)) for name in named]
    return load_policy(data, str(path), lines=_lines(path), bases=bases)


def _beside(path: Path, name: str) -> Path:
    found = policy_file(name, path.parent)
    return found if found.is_absolute() or found.parent == path.parent else path.parent / found


def _lines(path: Path) -> dict[str, int]:
    """The line of every key and item of a YAML file, by its name as messages write it (`rules[0].action`)."""
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    return dict(_walk(root, "")) if root is not None else {}


def _walk(node: yaml.Node, key: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = f"{key}.{name.value}" if key else str(name.value)
            yield inner, name.start_mark.line + 1
            yield from _walk(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for at, value in enumerate(node.value):
            yield f"{key}[{at}]", value.start_mark.line + 1
            yield from _walk(value, f"{key}[{at}]")
