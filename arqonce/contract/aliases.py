"""Aliases of a payload's fields: writes and reads the keyword ``x-aliases``."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

ALIASES = "x-aliases"
"""In a field's schema: other accepted names, such as a former name. A message that uses two names of one field is
refused."""


class AliasedSchemas(GenerateJsonSchema):
    """Writes JSON Schemas as pydantic does, and adds ``x-aliases`` to fields that have other names."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Add the aliases to a model's fields."""
        written = super().model_schema(schema)
        is_by_name = bool(schema.get("config", {}).get("validate_by_name"))
        if self.mode == "validation" and (fields := _fields(schema["schema"])):
            for name, field in fields.items():
                called, *others = _names(name, field, is_by_name=is_by_name)
                if others:
                    written["properties"][called][ALIASES] = others
        return written


def _fields(schema: CoreSchema) -> dict[str, core_schema.ModelField]:
    """Return the fields of a model, also if validators wrap the model's schema."""
    found: Any = schema
    while isinstance(found, dict) and found.get("type") != "model-fields":
        found = found.get("schema")
    return {} if found is None else found["fields"]


def _names(name: str, field: core_schema.ModelField, *, is_by_name: bool) -> list[str]:
    """Return all names of a field; the name in the document comes first."""
    alias: Any = field.get("validation_alias") or []  # a name, or a path, or several paths
    paths = [[alias]] if isinstance(alias, str) else [path if isinstance(path, list) else [path] for path in alias]
    names = [path[0] for path in paths if len(path) == 1]
    return list(dict.fromkeys([*names, name] if is_by_name or not names else names))


def fields_by_name(properties: dict[str, Any]) -> dict[str, str]:
    """Map every accepted name to its field."""
    meant = {
        alias: name for name, field in properties.items() if isinstance(field, dict) for alias in field.get(ALIASES, ())
    }
    return meant | {name: name for name in properties}
