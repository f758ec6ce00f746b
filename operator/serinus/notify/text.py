"""The text of a message. Templates come from users, so they may say things but not compute."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from jinja2 import StrictUndefined, Template, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

DEFAULT = (
    "{{ namespace }}/{{ name }}, version {{ version }}: "
    "{% if event == 'Started' %}a release has started"
    "{% elif event == 'Step' %}{{ weight }}% of the users' requests"
    "{% elif event == 'ApprovalNeeded' %}waits for your approval at {{ weight }}% (serinus approve {{ name }})"
    "{% elif event == 'Promoted' %}promoted"
    "{% elif event == 'RolledBack' %}ROLLED BACK"
    "{% elif event == 'Failed' %}FAILED before any user saw it"
    "{% else %}no evidence, holding at {{ weight }}%{% endif %}. {{ message }}"
)
LONGEST = 3000
"""Characters of a text."""
_FILTERS = frozenset({"capitalize", "d", "default", "e", "escape", "lower", "title", "trim", "upper"})
_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.CondExpr,
    nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Filter,
)  # fmt: skip
"""Neither loops nor arithmetic: nothing whose time or memory grows beyond the template itself."""
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


class TemplateProblem(Exception):
    """A template cannot be used; says why."""


def text(template: str | None, known: Mapping[str, str | int], *, slack: bool = False) -> str:
    """The text for people.

    Args:
        template: the default one where it is None.
        known: what templates may name.
        slack: escapes what the values contain of Slack's own marks, so that no error message mentions a channel.

    Raises:
        TemplateProblem: the template is wrong, or does what it may not.
    """
    values = {name: _marked(value) if slack and isinstance(value, str) else value for name, value in known.items()}
    try:
        return _compiled(template or DEFAULT).render(values).strip()[:LONGEST]
    except TemplateError as error:
        raise TemplateProblem(str(error)) from None


@lru_cache(maxsize=256)
def _compiled(template: str) -> Template:
    tree = _ENVIRONMENT.parse(template)
    for node in [tree, *tree.find_all(nodes.Node)]:
        if not isinstance(node, _NODES):
            raise TemplateProblem(f"{type(node).__name__.lower()} is not allowed: only names, if, and simple filters")
        if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
            raise TemplateProblem(f"the filter {node.name} is not allowed; there are {', '.join(sorted(_FILTERS))}")
    return _ENVIRONMENT.from_string(template)


def _marked(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
