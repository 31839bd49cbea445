"""The embedded PostgreSQL and Valkey, used where no external servers are configured.

Both run as processes of the current user, on loopback ports that the system chooses, protected by passwords, with their
data in one folder. Start with `embedded_servers`.
"""

from workers.embedded.binaries import ServerBinaryNotFound
from workers.embedded.client import (
    RunningServers,
    ServerUrls,
    embedded_servers,
    embedded_servers_until_exit,
    running_server_urls,
    running_servers,
)
from workers.embedded.data_dir import DataDirNotAccessible, free_port
from workers.embedded.postgres import ServerStartError

__all__ = [
    "DataDirNotAccessible",
    "RunningServers",
    "ServerBinaryNotFound",
    "ServerStartError",
    "ServerUrls",
    "embedded_servers",
    "embedded_servers_until_exit",
    "free_port",
    "running_server_urls",
    "running_servers",
]
