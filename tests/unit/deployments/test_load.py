"""The serving process's numbers are asked for once for all pages, and read off the event loop."""

import asyncio

from app.deployments.load import Load, SharedMetrics

TEXT = """# TYPE pnc_requests_total counter
pnc_requests_total{deployment="digits"} 7.0
pnc_requests_total{deployment="other"} 5.0
# TYPE pnc_queue_seconds histogram
pnc_queue_seconds_sum 1.0
# TYPE pnc_compute_seconds histogram
pnc_compute_seconds_sum 3.0
pnc_compute_seconds_count 2.0
"""


def test_each_deployment_finds_its_own_numbers() -> None:
    digits, other = Load("digits"), Load("other")
    for load in (digits, other):
        load.read(TEXT, at=1.0)
    assert "<b>7</b>" in digits.tiles()
    assert "<b>5</b>" in other.tiles()
    assert "2000.0 ms" in digits.tiles()


def test_pages_that_ask_at_once_are_one_question() -> None:
    asked = []

    async def ask() -> tuple[int, bytes]:
        asked.append(1)
        await asyncio.sleep(0.05)
        return 200, b"numbers"

    async def main() -> None:
        numbers = SharedMetrics()
        assert set(await asyncio.gather(*(numbers.text(ask) for _ in range(100)))) == {"numbers"}
        assert await numbers.text(ask) == "numbers"

    asyncio.run(main())
    assert len(asked) == 1
