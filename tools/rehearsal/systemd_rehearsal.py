"""The rehearsal of deploy/systemd: follow docs/operate.md on a machine of its own, boot it, kill each unit, stop."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.rehearsal.compose_rehearsal import copy_checkout
from tools.rehearsal.images import PACKAGE_INDEX, REPOSITORY, build_debian, build_stand_in
from tools.rehearsal.podman import CannotRehearse, Podman, WrongResult
from tools.rehearsal.workload import Workload
from workers.local.process_specs import WORKER_GROUPS
from workers.settings import CHECKOUT

MACHINE = "unwind-rehearsal_systemd"
SECRETS = "/etc/unwind/secrets"
PAGE = CHECKOUT / "docs" / "operate.md"
UNITS = (
    *(f"unwind-worker@{group}" for group in WORKER_GROUPS),
    *(f"unwind-{name}" for name in ("beat", "flower", "metrics", "web")),
)
VARIABLES = (
    f"DATABASE_URL_FILE={SECRETS}/database_url CELERY_BROKER_URL_FILE={SECRETS}/broker_url "
    f"CELERY_RESULT_BACKEND_FILE={SECRETS}/result_backend UNWIND_DATA=/var/lib/unwind"
)
ADMINISTRATOR = "CREATE ROLE rehearsal SUPERUSER LOGIN PASSWORD 'rehearsal'"
POSTGRES_DELAY_SECONDS = 8
ACTIVE_TIMEOUT = 180.0
STOP_TIMEOUT = 100.0
SERVERS = f"""
cd /etc/postgresql/*/main
sed -i 's/^ssl = on/ssl = off/' postgresql.conf
echo "listen_addresses = '*'" >>postgresql.conf
echo 'host unwind all 0.0.0.0/0 scram-sha-256' >>pg_hba.conf
sed -i 's/^bind .*/bind 0.0.0.0/; s/^appendonly no/appendonly yes/' /etc/redis/redis.conf
echo 'aclfile /etc/redis/users.acl' >>/etc/redis/redis.conf
install -o redis -g redis -m 0600 {SECRETS}/redis_users /etc/redis/users.acl
systemctl restart postgresql redis-server
"""
LATE = f"""
directory=/etc/systemd/system/postgresql@.service.d
mkdir -p $directory
printf '[Service]\\nExecStartPre=/bin/sleep {POSTGRES_DELAY_SECONDS}\\n' >$directory/late.conf
"""


def run(orders: int, *, report: Callable[[str], None]) -> None:
    with contextlib.ExitStack() as stack:
        podman = Podman()
        stack.callback(podman.close)
        checkout = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unwind-rehearsal-")))
        copy_checkout(checkout)
        report("Building a machine with systemd.")
        build_debian(podman)
        build_stand_in(podman, "systemd")
        rehearsal = SystemdRehearsal(podman, orders, report)
        rehearsal.install(checkout)
        rehearsal.boot()
        rehearsal.kill_under_load()
        rehearsal.check_effects()
        rehearsal.stop()


def page_block(heading: str, language: str) -> str:
    """The first block of a section of docs/operate.md."""
    section = PAGE.read_text().partition(f"# {heading}\n")[2]
    match = re.search(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    if match is None:
        raise CannotRehearse(f"docs/operate.md has no {language} block below {heading}")
    return match[1]


class SystemdRehearsal:
    def __init__(self, podman: Podman, orders: int, report: Callable[[str], None]) -> None:
        self._podman, self._orders, self._report = podman, orders, report
        mounts = [f"--volume={path}:{path}:ro" for path in PACKAGE_INDEX if path.exists()]
        options = (f"--name={MACHINE}", "--privileged", "--systemd=always", *mounts)
        podman("run", "--detach", *options, f"{REPOSITORY}/systemd")
        self._await_boot()

    def install(self, checkout: Path) -> None:
        """Follow the page: the user, the checkout, the secrets, the servers, the units."""
        self._podman("exec", MACHINE, "mkdir", "/opt/unwind")
        self._podman("cp", f"{checkout}/.", f"{MACHINE}:/opt/unwind", timeout=120)
        user, *_ = [line for line in page_block("Under systemd", "console").splitlines() if line.startswith("useradd ")]
        self._sh(f"chmod -R a+rX /opt/unwind; {user}")
        install, enable = page_block("Under systemd", "console").rsplit("systemctl daemon-reload", 1)
        install = install.replace(user + "\n", "")
        self._sh(install, timeout=600)
        sql = page_block("PostgreSQL", "sql").replace("change-me", self._cat("postgres_password"))
        self._sh(SERVERS)
        self._sql(sql)
        self._sh(f"systemctl daemon-reload{enable}".replace("--now ", ""))
        self._report("Installed as docs/operate.md says.")

    def boot(self) -> None:
        """Boot, with PostgreSQL later than everything else."""
        self._sh(LATE)
        self._podman("restart", "--time", "60", MACHINE, timeout=120)
        self._await_boot()
        self._await_active("unwind.target", *UNITS)
        self._report(f"Booted with PostgreSQL {POSTGRES_DELAY_SECONDS} s late: all units are active.")

    def kill_under_load(self) -> None:
        address = self._podman("inspect", "--format", "{{.NetworkSettings.IPAddress}}", MACHINE)
        database, broker = (self._cat(name) for name in ("database_url", "producer_broker_url"))
        self._workload = Workload(
            self._orders, database.replace("@127.0.0.1", f"@{address}"), broker.replace("@127.0.0.1", f"@{address}")
        )
        self._sql(ADMINISTRATOR)
        self._workload.prepare(f"postgresql://rehearsal:rehearsal@{address}:5432/unwind")
        self._sql("DROP ROLE rehearsal")
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(self._workload.send)
            for unit in ("redis-server", "postgresql@15-main", *UNITS):
                killed = self._main_pid(unit)
                self._sh(f"kill -KILL {killed}")
                if unit.startswith("postgresql"):  # Debian's unit has no Restart=
                    self._sh(f"while systemctl is-active --quiet {unit}; do sleep 0.1; done")
                    self._sh(f"until systemctl start {unit}; do sleep 0.5; done")
                started_at = time.monotonic()
                self._await_restart(unit, killed)
                self._await_active(*UNITS)
                self._report(f"{unit}: kill -9, all units active again after {time.monotonic() - started_at:.0f} s")
            self._report(f"{self._orders} commands sent, {sending.result()} tries repeated")

    def check_effects(self) -> None:
        self._workload.check()
        self._report(f"{self._orders} orders cancelled: nothing lost, nothing doubled")
        self._unwind("audit")
        self._report("audit is clean")
        self._await(lambda: self._run(f"{VARIABLES} /opt/unwind/run doctor").returncode == 0, "doctor is not content")
        self._unwind("backup /var/backups/unwind.dump")
        self._report("doctor is clean, a backup is written")

    def stop(self) -> None:
        started_at = time.monotonic()
        self._sh("systemctl stop unwind.target", timeout=STOP_TIMEOUT)
        states = f"systemctl is-active {' '.join(UNITS)} || true"
        self._await(lambda: set(self._sh(states).split()) <= {"inactive", "failed"}, "Units do not stop")
        if failed := self._sh("systemctl list-units --failed --plain --no-legend 'unwind*'").strip():
            raise WrongResult(f"Did not end by themselves:\n{failed}")
        self._report(f"unwind.target: stopped after {time.monotonic() - started_at:.0f} s")

    def _await_boot(self) -> None:
        self._await(lambda: self._run("systemctl is-active basic.target").returncode == 0, "The machine does not boot")

    def _await_active(self, *units: str) -> None:
        states = f"systemctl is-active {' '.join(units)}"
        self._await(lambda: set(self._run(states).stdout.split()) == {"active"}, "Units are not active")

    def _await_restart(self, unit: str, killed: str) -> None:
        self._await(lambda: self._main_pid(unit) not in {"0", killed}, f"{unit} is not started again")

    def _await(self, condition: Callable[[], bool], problem: str) -> None:
        until = time.monotonic() + ACTIVE_TIMEOUT
        while not condition():
            if time.monotonic() > until:
                script = "systemctl --no-pager list-units --all 'unwind*'; journalctl -n 40 -u 'unwind*' || true"
                raise WrongResult(f"{problem} after {ACTIVE_TIMEOUT:.0f} s:\n{self._run(script).stdout}")
            time.sleep(0.5)

    def _main_pid(self, unit: str) -> str:
        return self._sh(f"systemctl show --property=MainPID --value {unit}").strip()

    def _unwind(self, command: str) -> None:
        self._sh(f"{VARIABLES} /opt/unwind/run {command}")

    def _cat(self, secret: str) -> str:
        return self._sh(f"cat {SECRETS}/{secret}").strip()

    def _sql(self, text: str) -> None:
        self._sh(f"echo {shlex.quote(text)} | runuser -u postgres -- psql --quiet --set ON_ERROR_STOP=1")

    def _run(self, script: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return self._podman.run("exec", MACHINE, "bash", "-euc", script, timeout=timeout)

    def _sh(self, script: str, timeout: float = 120) -> str:
        done = self._run(script, timeout)
        if done.returncode:
            output = (done.stdout + done.stderr)[-2000:]
            raise CannotRehearse(f"{script.strip()[:300]}\nended with code {done.returncode}:\n{output}")
        return done.stdout
