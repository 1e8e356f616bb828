"""The state machine of jobs and deployments, on PostgreSQL."""

from app.zoo import Zoo
from tests.fuzz.test_lives import live


def test_lives_on_postgresql(zoo: Zoo) -> None:
    live(zoo)
