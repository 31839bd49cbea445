"""Where do PostgreSQL and Valkey come from when nobody gives us any?

From this package: both run as processes of the current user, on loopback ports the system chose, behind passwords, with
their data in one folder. See `lease` for the way in.
"""

from workers.embedded.binaries import NoServerFound
from workers.embedded.client import RunningServers, ServerUrls, embedded_servers, hold_servers, running_servers
from workers.embedded.data_dir import FolderNotOurs, free_port
from workers.embedded.postgres import ServerDidNotStart

__all__ = [
    "FolderNotOurs",
    "NoServerFound",
    "RunningServers",
    "ServerDidNotStart",
    "ServerUrls",
    "embedded_servers",
    "free_port",
    "hold_servers",
    "running_servers",
]
