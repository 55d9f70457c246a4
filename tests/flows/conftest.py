from collections.abc import Callable

import pytest


@pytest.fixture
def unchecked() -> Callable[..., object]:
    """Makes a dataclass without the type checks of the test run, as it is made in production."""

    def make(cls: type, **fields: object) -> object:
        value = cls()
        for name, field in fields.items():
            object.__setattr__(value, name, field)
        value.__post_init__()
        return value

    return make
