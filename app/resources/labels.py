"""Descriptions and tags in requests, and what the routes share that change them."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from app.dependencies import built
from app.http.examples import EXAMPLE_DESCRIPTION, EXAMPLE_TAGS
from app.http.json_body import json_body, json_request
from app.problems.problem import problem_responses
from app.resources.etags import ETAG, NO_CONDITIONS, PreconditionsDep, etag_of_view, respond
from models_store.label_types import MAX_TAGS, Description, TagName, TagValue
from models_store.labels import LabelChange, any_state

_Resource = TypeVar("_Resource")

LABEL_EXAMPLES: dict[str, Any] = {
    "tag": {
        "summary": "Describe and tag",
        "value": {"description": EXAMPLE_DESCRIPTION, "tags": EXAMPLE_TAGS},
    },
    "remove": {"summary": "Remove a tag", "value": {"tags": {"team": None}}},
}


class LabelsRequest(BaseModel):
    """Change of a description and of tags; fields that are left out stay unchanged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: Annotated[
        Description | None,
        Field(description="New description; null removes it."),
    ] = None
    tags: Annotated[
        dict[TagName, TagValue | None],
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


DESCRIPTION: Any = Field(description="Free text; null if there is none.")
TAGS: Any = Field(description="Values of the tags by their names.")


class LabelUpdate:
    """Change of labels that a request asks for, to be made if its preconditions hold."""

    def __init__(
        self,
        body: Annotated[LabelsRequest, Depends(json_body(LabelsRequest))],
        conditions: PreconditionsDep,
    ) -> None:
        self._body = body
        self._conditions = conditions

    def make(
        self,
        change: Callable[[LabelChange, Callable[[_Resource], bool]], _Resource],
        view: Callable[[_Resource], BaseModel],
    ) -> Response:
        """Make the change and return the response that shows the resource, with its ETag.

        Args:
            change: Function that changes the resource if a condition on its state holds.
            view: Function that makes the view of the resource.
        """

        def holds(resource: _Resource) -> bool:
            return self._conditions.hold(etag_of_view(view(resource)))

        condition = any_state if self._conditions.hold_always else holds
        shown = view(change(self._body.change(), condition))
        return respond(shown, NO_CONDITIONS)


LabelUpdateDep = Annotated[LabelUpdate, Depends(built(LabelUpdate))]
LABEL_ROUTE: dict[str, Any] = {
    "openapi_extra": json_request(LabelsRequest, examples=LABEL_EXAMPLES),
    "responses": {
        200: {"headers": ETAG},
        **problem_responses("not-found", "precondition", "limit-tags", "quota-storage"),
    },
}
"""Arguments of the decorator of a route that changes labels."""
