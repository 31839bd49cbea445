"""What does Flower show, to whom, and what may they do there?  Look, and nothing else.

`celery -A workers.app flower` reads this file wherever it is typed. Everything that differs from one installation to the next is a
setting of ours: see `.env.example`. What other options and variables make of it is checked in `workers/monitoring/flower_guard.py`.
"""

from workers.settings import load_settings

_settings = load_settings()
_settings.flower_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

# -- to whom: loopback unless told otherwise, and with a login wherever there is one (F56) -----------------------------
address = _settings.flower_address
port = _settings.flower_port or 5555
if _settings.flower_login is not None:
    basic_auth = [_settings.flower_login.get_secret_value()]

# -- what they may do: a login is no authorisation there, so outside the demo nobody commands anything (F57, X10) ------
read_only = _settings.flower_read_only

# -- what is shown: which job, about which order, how it ended ---------------------------------------------------------
tasks_columns = "received,name,kwargs,state,result,runtime,uuid"
# Some days of a busy shop. All of it is written every minute, so a larger number costs seconds each time.
max_tasks = 20_000
purge_offline_workers = 60  # seconds after which a worker that was replaced leaves the list

# -- what is remembered: through restarts, on a volume where there is one ----------------------------------------------
persistent = True
db = str(_settings.flower_dir / "tasks")
state_save_interval = 60_000  # milliseconds
