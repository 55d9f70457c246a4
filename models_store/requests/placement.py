"""Fields of all requests for jobs that say when and where they run."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from models_store.job_states import Accelerator


class Resources(BaseModel):
    """Resources that a job wants of the worker that takes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accelerator: Accelerator = Field(
        default=Accelerator.NONE,
        description="`none`: workers without a GPU come first; `preferred`: those with one; `required`:"
        " only those with one take the job, which waits for one.",
    )


class Placed(BaseModel):
    """Request for a job with a priority and resources."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    priority: Annotated[int, Field(ge=-100, le=100)] = Field(
        default=0,
        description="Priority among waiting jobs: higher ones are taken first. Among equal ones, those"
        " of the project with the fewest running jobs.",
    )
    resources: Resources = Resources()
