"""Requests that need no key wait for their turns, as those of callers do."""

import asyncio

import httpx

from app.main import create_app


def test_requests_without_a_key_begin_some_at_a_time(shared_settings):
    answered: list[str] = []

    async def ask(client: httpx.AsyncClient, target: str) -> None:
        assert (await client.get(target)).status_code == 200
        answered.append(target)

    async def main() -> None:
        app = create_app(shared_settings)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                await ask(client, "/docs")
                await ask(client, "/livez")
                many = [asyncio.create_task(ask(client, "/docs")) for _ in range(100)]
                await asyncio.sleep(0)
                await ask(client, "/livez")
                await asyncio.gather(*many)

    asyncio.run(main())
    assert len(answered) == 103
    assert answered.index("/livez", 2) < 52
