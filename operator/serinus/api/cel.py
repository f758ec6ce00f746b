"""CEL rules that go from the models into the CRD, where the API server enforces them without a webhook.

A rule's message says what to write instead. Where the same check costs one line in Python, the annotation makes it
there too, so that a file can be checked without a cluster.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

KEY = "x-kubernetes-validations"


def quote(text: str) -> str:
    """`text` as a CEL string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


@dataclass(frozen=True)
class Cel:
    """One entry of `x-kubernetes-validations`; an annotation of a field, or one of a model's `rules`."""

    rule: str
    message: str
    """What to write instead. One line."""
    message_expression: str | None = None
    """CEL that makes a better message from the value."""
    field_path: str | None = None
    """The field to blame, relative to the rule's place, such as `.steps`."""

    def entry(self) -> dict[str, str]:
        """The rule as the CRD writes it."""
        entry = {"rule": self.rule, "message": self.message}
        if self.message_expression:
            entry["messageExpression"] = self.message_expression
        if self.field_path:
            entry["fieldPath"] = self.field_path
        return entry

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return with_rules(handler(schema), self)


@dataclass(frozen=True)
class Matching:
    """A text that matches a pattern from end to end. The pattern must mean the same in RE2 and in Python.

    The CRD gets a rule instead of `pattern`, because the API server's pattern errors show only the pattern.
    """

    pattern: str
    message: str
    """What to write instead."""
    max_length: int
    never: tuple[tuple[str, str], ...] = ()
    """Patterns that may match nowhere in the text, each with what to write instead."""
    message_expression: str | None = None
    """CEL that makes a better message from the value."""

    @property
    def rules(self) -> tuple[Cel, ...]:
        """The patterns as CEL."""
        refused = (Cel(f"!self.matches({quote(pattern)})", message) for pattern, message in self.never)
        return (Cel(f"self.matches({quote(self.pattern)})", self.message, self.message_expression), *refused)

    def check(self, text: str) -> str:
        """`text` itself.

        Raises:
            PydanticCustomError: it does not match, or matches what it never may.
        """
        if re.fullmatch(self.pattern, text) is None:
            raise PydanticCustomError("pattern", "{message}", {"message": self.message})
        for pattern, message in self.never:
            if re.search(pattern, text):
                raise PydanticCustomError("pattern", "{message}", {"message": message})
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(max_length=self.max_length)
        return core_schema.no_info_after_validator_function(self.check, text)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return with_rules(handler(schema), *self.rules)


def with_rules(schema: JsonSchemaValue, *rules: Cel) -> JsonSchemaValue:
    """`schema` with more rules."""
    return {**schema, KEY: [*schema.get(KEY, ()), *(rule.entry() for rule in rules)]} if rules else schema
