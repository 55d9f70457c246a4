"""Response models of the events of jobs."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter

from app.resources.metrics import RowMetrics, TrainingMetrics, VariationalMetrics
from models_store.job_states import JobEvent, JobState
from models_store.schema_of import SchemaOf


class StateData(BaseModel):
    """State that a job has come to."""

    state: JobState = Field(description="New state.")
    attempt: int = Field(
        description="Number of times that a worker has started the job; 0: not yet."
    )


class MessageData(BaseModel):
    """Message for people."""

    text: str = Field(description="Text of the message.")


class ChildMetrics(BaseModel):
    """Numbers and texts of the metrics of a child, without its lists."""

    epoch: int | None = Field(default=None, description="Number of epochs of a training.")
    seconds: float | None = Field(default=None, description="Seconds of training.")
    best_robust_validation_log_likelihood: float | None = Field(
        default=None,
        description="Highest robust mean log likelihood of the validation rows in nats per row.",
    )
    rows: int | None = Field(default=None, description="Number of computed rows.")


class ChildData(BaseModel):
    """Child of a job that has ended."""

    job_id: str = Field(description="Id of the child.")
    stage: int = Field(description="Stage of the plan, counted from 0.")
    number: int = Field(description="Number of the child's task in its stage, counted from 0.")
    state: JobState = Field(description="State that it ended in.")
    error: str | None = Field(
        default=None, description="Stable name of the reason why it failed; absent if it did not."
    )
    metrics: ChildMetrics = Field(description="Last metrics of the child.")


class EndData(BaseModel):
    """End of a job."""

    state: JobState = Field(description="State that it ended in.")


class _Event(BaseModel):
    id: int = Field(description="Number of the event, which counts from 1 without gaps.")
    created_at: datetime = Field(description="Time of the event.")


class StateEvent(_Event):
    """Change of the state of a job."""

    event: Literal["state"] = Field(description="`state`: the job is in another state.")
    data: Annotated[dict[str, Any], SchemaOf(StateData)] = Field(description="New state.")


class EpochEvent(_Event):
    """Report of a running job: of an epoch, of some iterations, or of a part of the rows."""

    event: Literal["epoch"] = Field(
        description="`epoch`: a report of an epoch, of some iterations, or of a part of the rows."
    )
    data: Annotated[dict[str, Any], SchemaOf(TrainingMetrics | VariationalMetrics | RowMetrics)] = (
        Field(description="Metrics of the report.")
    )


class ChildEvent(_Event):
    """End of a child of a job."""

    event: Literal["child"] = Field(description="`child`: a child has ended.")
    data: Annotated[dict[str, Any], SchemaOf(ChildData)] = Field(description="Child and its end.")


class MessageEvent(_Event):
    """Message about a job for human readers."""

    event: Literal["message"] = Field(description="`message`: a text for human readers.")
    data: Annotated[dict[str, Any], SchemaOf(MessageData)] = Field(
        description="Text of the message."
    )


class EndEvent(_Event):
    """End of a job, its last event."""

    event: Literal["end"] = Field(description="`end`: the job has ended; no event follows.")
    data: Annotated[dict[str, Any], SchemaOf(EndData)] = Field(description="Final state.")


EventView = Annotated[
    StateEvent | EpochEvent | ChildEvent | MessageEvent | EndEvent, Field(discriminator="event")
]
_EVENT: TypeAdapter[EventView] = TypeAdapter(EventView)


class EventPage(BaseModel):
    """Page of events, oldest first."""

    items: list[EventView] = Field(description="Events, at most some hundreds.")
    next_after: int = Field(description="Value of `after` for the next page.")
    ended: bool = Field(description="True if the job has ended and these are its last events.")


def view_event(event: JobEvent) -> EventView:
    """Return the view of an event."""
    return _EVENT.validate_python(vars(event) | {"id": event.seq, "event": str(event.event)})
