"""Notifications for every ModelDeployment, from the operator's own configuration."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from serinus.api.notifications import Notification

_LIST = TypeAdapter(tuple[Notification, ...])


class NotificationsError(Exception):
    """The file cannot be used; says what is wrong."""


def read(path: Path | None) -> tuple[Notification, ...]:
    """The notifications in a YAML file, a list as in spec.release.notifications; none where there is no file.

    Raises:
        NotificationsError: it cannot be read, or holds something else.
    """
    if path is None:
        return ()
    try:
        return _LIST.validate_python(yaml.safe_load(path.read_text()) or [])
    except (OSError, yaml.YAMLError) as error:
        raise NotificationsError(f"{path}: {error}") from None
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:5])
        raise NotificationsError(f"{path}: {found}") from None
