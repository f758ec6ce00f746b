"""Settings from a file: the names of the environment without SERINUS_, in camelCase or lower_snake.

YAML needs the extra `yaml`; JSON and TOML need nothing. The environment wins over the file.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serinus_runtime.config import SETTINGS
from serinus_runtime.failures import FailureError, Reason

VARIABLE = "SERINUS_CONFIG"
_MAX_BYTES = 1 << 20
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def with_file(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ`, and what the file that its SERINUS_CONFIG names says beside it. Raises FailureError."""
    path = environ.get(VARIABLE, "")
    if not path:
        return dict(environ)
    told = read(Path(path))
    given = {name: text for name, text in environ.items() if text != ""}
    return {**told, **given}


class _BadFileError(ValueError):
    pass


def read(path: Path) -> dict[str, str]:
    """The settings in `path` as variables of the environment. Raises FailureError that says what to write instead."""
    try:
        return _read(path)
    except (OSError, ValueError) as error:
        raise FailureError(Reason.INVALID_CONFIG, f"{VARIABLE}={path}: {error}") from error


def _read(path: Path) -> dict[str, str]:
    if path.stat().st_size > _MAX_BYTES:
        raise _BadFileError(f"it is larger than {_MAX_BYTES} bytes")
    found = _parse(path.suffix.lower(), path.read_bytes().decode())
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _BadFileError("write one setting a line, name: value")
    variables: dict[str, str] = {}
    for name, value in found.items():
        variable = _variable(str(name))
        if variable in variables:
            raise _BadFileError(f"{name!r} is there twice, in two spellings")
        variables[variable] = _text(str(name), value)
    return variables


def _parse(suffix: str, text: str) -> Any:
    if suffix == ".json":
        return json.loads(text)
    if suffix == ".toml":
        return tomllib.loads(text)
    if suffix in (".yaml", ".yml"):
        try:
            import yaml
        except ImportError:
            raise _BadFileError("YAML needs the extra `yaml`; write JSON or TOML instead") from None
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise _BadFileError(f"not YAML: {' '.join(str(error).split())}") from None
    raise _BadFileError("what is in it? Name it .yaml, .json or .toml")


def _variable(name: str) -> str:
    field = _HUMP.sub("_", name).lower()
    if field in SETTINGS:
        return f"SERINUS_{field.upper()}"
    known = [_camel(each) for each in SETTINGS]
    near = difflib.get_close_matches(_camel(field), known, 1, 0.0)
    raise _BadFileError(f"{name!r} is not a setting; the nearest is {near[0]!r}")


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(each, str | int | float) for each in value):
        return ",".join(str(each) for each in value)
    if isinstance(value, dict):
        raise _BadFileError(f"{name!r} is not a section: write every setting at the top, such as queueMaxLength")
    raise _BadFileError(f"{name!r} must be a text, a number, true, false or a list of those")


def _camel(field: str) -> str:
    head, *rest = field.split("_")
    return head + "".join(part.capitalize() for part in rest)
