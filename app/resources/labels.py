"""Descriptions and tags in requests."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from models_store.labels import MAX_DESCRIPTION, MAX_TAGS, MAX_VALUE, NAME_PATTERN, LabelChange

_TEXT = r"^[^\x00]*$"
TagName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
_Value = Annotated[str, StringConstraints(max_length=MAX_VALUE, pattern=_TEXT)]

LABEL_EXAMPLES: dict[str, Any] = {
    "tag": {
        "summary": "Describe and tag",
        "value": {"description": "Sensors of the shuttle", "tags": {"team": "space"}},
    },
    "remove": {"summary": "Remove a tag", "value": {"tags": {"team": None}}},
}


class LabelsRequest(BaseModel):
    """Change of a description and of tags; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: Annotated[
        Annotated[str, StringConstraints(max_length=MAX_DESCRIPTION, pattern=_TEXT)] | None,
        Field(description="New description; null removes it."),
    ] = None
    tags: Annotated[
        dict[TagName, _Value | None],
        Field(
            max_length=2 * MAX_TAGS,
            description="New values of tags by name; null removes a tag, others stay.",
        ),
    ] = {}

    def change(self) -> LabelChange:
        """Return the change."""
        return LabelChange(
            describes="description" in self.model_fields_set,
            description=self.description,
            tags=self.tags,
        )


TAGS: Any = Field(description="Values of the tags by their names.")
