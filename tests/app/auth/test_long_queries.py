"""A query that takes long to read waits for its turn, and others do not wait for it."""

import asyncio

import httpx
import pytest

from app.auth.long_queries import LongQueries
from app.main import create_app
from app.problems.problem import Problem

LONG = "&".join(f"a{number}=%41" for number in range(2_700))


@pytest.mark.parametrize("path", ["/livez", "/docs"])
def test_a_short_query_does_not_wait_for_long_ones(shared_settings, path):
    answered: list[tuple[str, int]] = []

    async def ask(client: httpx.AsyncClient, target: str) -> None:
        answered.append((target, (await client.get(target)).status_code))

    async def main() -> None:
        app = create_app(shared_settings)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                await ask(client, f"{path}?{LONG}")
                long = [asyncio.create_task(ask(client, f"{path}?{LONG}")) for _ in range(40)]
                await asyncio.sleep(0)
                await ask(client, "/livez?short")
                for task in long:
                    task.cancel()
                await asyncio.gather(*long, return_exceptions=True)

    asyncio.run(main())
    assert answered[0] == (f"{path}?{LONG}", 200)
    assert answered[-1] == ("/livez?short", 200)
    assert len(answered) < 40


def test_owners_take_turns_and_each_has_a_bounded_number_that_wait():
    queries, read, refused = LongQueries(), list[str](), list[str]()

    async def wait(query: str, owner: str) -> None:
        try:
            await queries.wait(query.encode(), owner)
        except Problem as problem:
            refused.append(problem.type.slug)
        else:
            read.append(owner)

    async def main() -> None:
        waiting = [asyncio.create_task(wait(LONG, "many")) for _ in range(70)]
        await asyncio.sleep(0)
        await wait(LONG, "one")
        assert len(waiting) - len(refused) == 65
        await wait("a=1&b=%41", "many")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(main())
    assert read == ["many", "one", "many"]
    assert refused == ["overloaded"] * 5
