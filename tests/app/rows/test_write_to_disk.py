import asyncio
import io
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from app.rows.body import write_to_disk


class Noting(io.BytesIO):
    def close(self) -> None:
        self.closer = threading.get_ident()
        self.content = self.getvalue()
        super().close()


async def chunks(*, fail: bool) -> AsyncIterator[bytes]:
    yield b"1,2\n"
    if fail:
        raise ConnectionError
    yield b"3,4\n"


@pytest.mark.parametrize("fail", [False, True], ids=["whole", "cut off"])
def test_a_body_is_closed_in_a_thread(fail):
    file = Noting()
    destination: Any = SimpleNamespace(open=lambda _mode: file)
    if fail:
        with pytest.raises(ConnectionError):
            asyncio.run(write_to_disk(chunks(fail=True), destination))
    else:
        assert asyncio.run(write_to_disk(chunks(fail=False), destination)) == 8
        assert file.content == b"1,2\n3,4\n"
    assert file.closer != threading.get_ident()


def test_little_of_a_slow_body_waits_in_memory_to_be_written():
    file, waiting = Noting(), []
    destination: Any = SimpleNamespace(open=lambda _mode: file)

    async def slow() -> AsyncIterator[bytes]:
        for number in range(1, 1_000):
            yield b"1,2,3,4\n" * 128
            waiting.append(number * 1024 - file.tell())

    asyncio.run(write_to_disk(slow(), destination))
    assert max(waiting) <= 128 * 1024
