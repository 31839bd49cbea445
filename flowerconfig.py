"""Flower's configuration: what it shows, to whom, and that its users cannot change anything.

`celery -A workers.app flower` reads this file in every directory.  What differs between installations is a setting of
ours: see `.env.example`.  `workers/monitoring/flower_guard.py` checks the effect of other options and variables.
"""

from workers.settings import load_settings

_settings = load_settings()
_settings.flower_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

# -- access: loopback by default, and with a login if one is set
# ---------------------------------------------------------
address = _settings.flower_address
port = _settings.flower_port or 5555
if _settings.flower_login is not None:
    basic_auth = [_settings.flower_login.get_secret_value()]

# -- rights: Flower's login is no authorization, so it is read-only outside the demo
# --------------------------------------
read_only = _settings.flower_read_only

# -- contents: which task, about which order, with which result
# ----------------------------------------------------------
tasks_columns = "received,name,kwargs,state,result,runtime,uuid"
# A few days of a busy marketplace. All of it is saved every minute, so a larger number costs seconds each time.
max_tasks = 20_000
purge_offline_workers = 60  # seconds after which a replaced worker leaves the list

# -- persistence
# ---------------------------------------------------------------------------------------------------------
persistent = True
db = str(_settings.flower_dir / "tasks")
state_save_interval = 60_000  # milliseconds
