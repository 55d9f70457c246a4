from collections.abc import Callable

import pytest

from tests.flows.cases import Case


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave cases that are like others to the long form."""
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            case = item.callspec.params.get("case")
            if isinstance(case, Case) and case.alike:
                item.add_marker(pytest.mark.long)


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
