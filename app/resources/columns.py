"""Types of columns, as datasets, versions and accepted requests have them."""

from typing import Self

from pydantic import BaseModel, Field, model_validator

from tabular.columns import ColumnType, TransformName


class TypedColumn(BaseModel):
    """Type of a column, its levels, and the format of its cells."""

    name: str = Field(description="Name of the column.")
    type: ColumnType = Field(default="number", description="Type of the values.")
    levels: list[str | bool | float] = Field(
        default=[],
        description="Values of a column that has few: numbers, and false and true in their order, texts"
        " the most frequent first. Empty for a continuous scale.",
    )
    other: bool = Field(
        default=False, description="True if rare texts are one more level after these, `*other*`."
    )
    missing: bool = Field(default=False, description="True if cells of the table were missing.")
    spikes: list[float] = Field(
        default=[],
        description="Single values that hold a large share of an otherwise continuous column.",
    )
    decimals: int | None = Field(
        default=None,
        description="Largest number of decimals of the values; null if it is unknown.",
    )
    na_values: list[str] = Field(
        default=[],
        description="Texts that mean a missing cell, besides the usual ones.",
    )
    decimal: str = Field(default=".", description="Decimal mark of numbers in text.")
    thousands: str = Field(
        default="", description="Mark between groups of three digits in text; empty: none."
    )
    unit: str = Field(
        default="",
        description="Text before or behind each number in text, such as `$` or `kg`, or both, as in `$#/kg`;"
        " empty: none.",
    )
    datetime_format: str | None = Field(
        default=None, description="Format of dates; null for ISO 8601, or no dates."
    )
    first_year: int | None = Field(
        default=None,
        description="First of the hundred years that years of two digits stand for; null: dates have none.",
    )
    date_only: bool = Field(
        default=False, description="True if all values are dates without a time of day."
    )
    step_s: int = Field(
        default=0,
        description="Seconds that all dates with a time of day are multiples of, such as 60; 0: none.",
    )
    transform: TransformName = Field(
        default="none", description="Monotone map to a scale on which the column is modelled."
    )
    low: float | None = Field(
        default=None, description="Lower bound of the values; null if there is none."
    )
    high: float | None = Field(
        default=None, description="Upper bound of the values; null if there is none."
    )

    @model_validator(mode="after")
    def let_others_run(self) -> Self:
        """Return the column: a call in Python is where other threads run among those of thousands."""
        return self
