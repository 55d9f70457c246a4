"""Descriptions and tags as callers may write them."""

from typing import Annotated

from pydantic import StringConstraints

MAX_TAGS = 64
"""Tags of one resource."""

MAX_DESCRIPTION = 4000
MAX_VALUE = 256
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$"
"""Pattern of the names of tags."""

TEXT = r"^[^\x00]*$"
"""Pattern of texts that both databases can compare and keep."""

Description = Annotated[str, StringConstraints(max_length=MAX_DESCRIPTION, pattern=TEXT)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=TEXT)]
TagName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
TagValue = Annotated[str, StringConstraints(max_length=MAX_VALUE, pattern=TEXT)]
