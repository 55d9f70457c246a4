from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """Give every test the threads of before: the work of a task sets their number."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
