"""Fields of all requests for jobs: labels, and when and where they run."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from models_store.job_states import Accelerator
from models_store.label_types import MAX_TAGS, Description, TagName, TagValue


class Resources(BaseModel):
    """Resources that a job needs from the worker that takes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accelerator: Accelerator = Field(
        default=Accelerator.NONE,
        description="`none`: workers without a GPU come first; `preferred`: those with one; `required`:"
        " only those with one take the job, which waits for one.",
    )


class Placed(BaseModel):
    """Request for a job with labels, a priority and resources."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    priority: Annotated[int, Field(ge=-100, le=100)] = Field(
        default=0,
        description="Priority among waiting jobs of the project: higher ones are taken first. Projects"
        " take turns, whatever the priorities of their jobs.",
    )
    resources: Resources = Field(
        default=Resources(), description="Resources that the job needs from its worker."
    )
    description: Description | None = Field(default=None, description="Description of the job.")
    tags: dict[TagName, TagValue] = Field(
        default={},
        max_length=MAX_TAGS,
        description="Values of the job's tags by name. A version that the job makes gets them, too.",
    )
