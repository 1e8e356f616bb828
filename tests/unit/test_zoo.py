"""What a process says when a setting leads nowhere: one line that names it."""

from pathlib import Path

import pytest

from app.errors import Misconfigured
from app.settings import Settings
from app.zoo import open_zoo


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"database_url": "mysql://host/db"}, r"PNC_DATABASE_URL: expected sqlite:///.* got mysql://"),
        ({"database_url": "nonsense"}, "PNC_DATABASE_URL: expected a URL such as"),
        ({"database_url": "sqlite:////proc/none/zoo.db"}, "PNC_DATABASE_URL: .* unable to open database file"),
        (
            {"database_url": "postgresql://pnc:hidden@127.0.0.1:1/zoo"},
            r"PNC_DATABASE_URL: .* at postgresql\+psycopg://pnc:\*\*\*@127.0.0.1:1/zoo, got: .*refused",
        ),
        ({"store_url": "ftp://host/bucket"}, r"PNC_STORE_URL: expected .* got 'ftp://host/bucket'"),
        ({"store_url": "/proc/none"}, "PNC_STORE_URL: expected a directory that can be written to, got /proc/none"),
        ({"data_dir": "/proc/none"}, "PNC_DATA_DIR: expected a directory that can be written to"),
    ],
)
def test_a_setting_that_leads_nowhere_is_named(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    with pytest.raises(Misconfigured, match=said) as caught:
        open_zoo(Settings(**{"data_dir": tmp_path, **settings}))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)
