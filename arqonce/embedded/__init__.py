"""Real PostgreSQL and Valkey from wheels, as child processes: for the demo, development and tests.

Imports no other package of ours, nor the wheels' own Python code: of the wheels only the programs are used. Their own
launchers open every parent directory to everyone when root runs them.
"""

import sys

from arqonce.embedded.errors import EmbeddedServerError

if sys.platform == "win32":
    raise EmbeddedServerError(
        "The embedded servers run on Linux and macOS only. Cure: use WSL, or point DATABASE_URL and REDIS_URL "
        "at servers of your own."
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
