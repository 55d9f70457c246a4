"""JSON that was stored once and is passed on as it is, documented by the schema of a type."""

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema


@dataclass(frozen=True)
class SchemaOf:
    """Annotation of stored JSON, which gives it the schema of a type and checks nothing.

    Rows of earlier releases, and what other services exported, may have fewer members or further
    ones; they are shown all the same.

    Args:
        shape: Type that describes the JSON.
    """

    shape: Any

    def __get_pydantic_core_schema__(
        self, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate as the annotated type alone."""
        return handler(source)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the schema of the shape."""
        return handler(TypeAdapter(self.shape).core_schema)
