"""YAML files that people write: whatever is wrong in one is an error of one line."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from encoders.errors import ConfigError


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The keys and values of a YAML file; none where it is empty.

    Raises:
        ConfigError: The file cannot be read, a key is there twice, or it holds anything but keys and values.
    """
    try:
        tree = yaml.load(Path(path).read_text(encoding="utf-8"), _UniqueKeys)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Check the path.") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(tree, dict | None):
        raise ConfigError(f"{path}: expected keys and values, found {type(tree).__name__}.")
    return tree or {}


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML in which a key may not occur twice; PyYAML lets the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        repeated = [key for at, key in enumerate(keys) if key in keys[:at]]
        if repeated:
            raise yaml.constructor.ConstructorError(
                problem=f"key {repeated[0]!r} is there twice,", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)
