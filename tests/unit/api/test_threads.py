"""Requests that wait for one thing keep no others waiting."""

import threading

import anyio
import httpx
from fastapi import FastAPI
from sqlalchemy import select

from app.zoo import Zoo

MANY = 60
"""More than FastAPI's own pool has threads."""


def test_changes_that_wait_for_a_lock_leave_reads_alone(app: FastAPI, zoo: Zoo) -> None:
    release, held = threading.Event(), threading.Event()

    def hold() -> None:
        with zoo.database.write() as session:  # SQLite has one writer at a time
            session.scalar(select(1))
            held.set()
            release.wait(25)

    async def main() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(anyio.to_thread.run_sync, hold)
            await anyio.to_thread.run_sync(held.wait)
            answers: list[int] = []

            async def change(number: int) -> None:
                answers.append((await client.post("/v1/models", json={"name": f"m{number}"})).status_code)

            for number in range(MANY):
                tasks.start_soon(change, number)
            await anyio.sleep(0.5)
            with anyio.fail_after(15):
                assert (await client.get("/v1/models")).json()["data"] == []
            assert answers == []
            release.set()
        assert answers == [201] * MANY

    anyio.run(main)
