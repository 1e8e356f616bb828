"""Starts real Redis, PostgreSQL and S3 (Ceph's radosgw) for the tests.

In tests and benchmarks, context managers start and stop a service:

    with redis(directory) as service:       # also: postgres(directory), s3(directory)
        service.environment()               # PNC_* and AWS_* variables with its address and keys
        service.kill()                      # SIGKILL; also pause() and resume()
        service.restart()                   # on the same port

On the command line: `python -m tests.services up`, then `status`, then `down`.
"""

from tests.services.broker import Redis, redis
from tests.services.database import Postgres, postgres
from tests.services.programs import Unavailable
from tests.services.radosgw import S3, s3
from tests.services.service import Service

__all__ = ["S3", "Postgres", "Redis", "Service", "Unavailable", "postgres", "redis", "s3"]
