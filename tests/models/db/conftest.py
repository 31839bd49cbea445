"""Where there is no pooler, its tests are not collected."""

from tests.plugins.pooler import PGBOUNCER

collect_ignore = [] if PGBOUNCER else ["test_pooler.py"]
