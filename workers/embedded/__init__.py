"""Where do PostgreSQL and Valkey come from when nobody gives us any?

From this package: both run as processes of the current user, on loopback ports the system chose, behind passwords, with
their data in one folder. See `lease` for the way in.
"""

from workers.embedded.binaries import ServerBinaryNotFound
from workers.embedded.client import (
    RunningServers,
    ServerUrls,
    embedded_servers,
    embedded_servers_until_exit,
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
    "running_servers",
]
