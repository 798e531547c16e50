"""Runs real PostgreSQL and Valkey from wheels, as child processes: for the demo, development and tests.

Imports no other package of ours, nor the wheels' Python code: it uses only their programs. When root runs the wheels'
own launchers, these make every parent directory accessible to all users.
"""

import sys

from arqonce.embedded.errors import EmbeddedServerError

if sys.platform == "win32":
    raise EmbeddedServerError(
        "The embedded servers run on Linux and macOS only. Cure: use WSL, or point DATABASE_URL and REDIS_URL "
        "at your own servers."
    )

from arqonce.embedded.postgres import PostgresServer, open_postgres
from arqonce.embedded.sentinel import Sentinels, open_sentinels
from arqonce.embedded.servers import Servers, open_servers
from arqonce.embedded.standby import StandbyServer, open_standby
from arqonce.embedded.valkey import ValkeyServer, open_valkey

__all__ = [
    "EmbeddedServerError",
    "PostgresServer",
    "Sentinels",
    "Servers",
    "StandbyServer",
    "ValkeyServer",
    "open_postgres",
    "open_sentinels",
    "open_servers",
    "open_standby",
    "open_valkey",
]
