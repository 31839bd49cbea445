"""The embedded PostgreSQL and Valkey, used where no external servers are configured.

Both run as processes of the current user, on loopback ports that the system chooses, protected by passwords, with their
data in one folder. Start with `embedded_servers`.
"""
