"""What a request knows of its application and of its caller."""

from typing import cast

from fastapi import Request

from app.auth.callers import Caller
from app.settings import ApiSettings


def settings_of(request: Request) -> ApiSettings:
    """The settings that the application was made with."""
    return cast(ApiSettings, request.app.state.settings)


def caller_of(request: Request) -> Caller:
    """Whoever asks."""
    return cast(Caller, request.scope["state"]["caller"])


def project_of(request: Request) -> str:
    """The project of whoever asks."""
    return caller_of(request).project
