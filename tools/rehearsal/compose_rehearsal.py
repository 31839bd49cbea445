"""The rehearsal of docker-compose.yml: start, cancel, kill each container, audit, restore a backup, stop."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.rehearsal.compose import Compose
from tools.rehearsal.images import build_product, build_stand_ins
from tools.rehearsal.podman import Podman, WrongResult
from tools.rehearsal.workload import Workload
from workers.embedded.data_dir import free_port
from workers.local.process_specs import WORKER_GROUPS
from workers.settings import CHECKOUT

PORTS = ("POSTGRES_PORT", "REDIS_PORT", "FLOWER_PORT", "METRICS_PORT", "WEB_PORT")
INTERFACES = ("flower", "metrics", "web")
HEALTHY_TIMEOUT = 120.0
STALL_TIMEOUT = 60.0
FLOWER_TIMEOUT = 60.0
QUIET_SECONDS = 8
ERROR_LINE = re.compile(r'"level": "(error|critical)"|^\[E |Traceback')
BACKUP = "/data/before-upgrade.dump"
RESTORE = "cat >/data/restore.dump && python -m workers restore /data/restore.dump && rm /data/restore.dump"


def run(orders: int, *, short: bool, report: Callable[[str], None]) -> None:
    with contextlib.ExitStack() as stack:
        podman = Podman()
        stack.callback(podman.close)
        checkout = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unwind-rehearsal-")))
        checkout.chmod(0o755)
        copy_checkout(checkout)
        images = build_stand_ins(podman)
        report("Built stand-ins for the official images.")
        build_product(podman, checkout, images["python"], "localhost/unwind:0.1.0")
        report("Built the Dockerfile.")
        rehearsal = ComposeRehearsal(podman, checkout, images, orders, report, without=INTERFACES if short else ())
        rehearsal.start()
        if short:
            rehearsal.kill_under_load(["worker-commands"])
            rehearsal.check_effects()
        else:
            rehearsal.check_interfaces()
            rehearsal.kill_under_load(rehearsal.compose.lasting)
            rehearsal.check_effects()
            rehearsal.check_quiet()
            rehearsal.restore_backup()
        rehearsal.stop()


class ComposeRehearsal:
    def __init__(
        self,
        podman: Podman,
        checkout: Path,
        images: dict[str, str],
        orders: int,
        report: Callable[[str], None],
        without: Iterable[str],
    ) -> None:
        subprocess.run([checkout / "deploy" / "make-secrets"], check=True, capture_output=True)
        self._checkout, self._report, self._podman = checkout, report, podman
        self._ports = {name: str(free_port()) for name in PORTS}
        self.compose = Compose(podman, checkout, self._ports, images, without)
        database_url = self._published("database_url", "POSTGRES_PORT")
        self._workload = Workload(orders, database_url, self._published("producer_broker_url", "REDIS_PORT"))
        self._workload.stall_timeout = STALL_TIMEOUT

    def start(self) -> None:
        self.compose.up(self._report, "postgres")
        self.compose.check_connection("postgres", 5432)
        self.compose.up(self._report, *(name for name in self.compose.services if name != "postgres"))
        self._workload.prepare()

    def check_interfaces(self) -> None:
        """See a command answered by HTTP, all workers in Flower, and the metrics."""
        key = self._python("web", "keys", "create", "rehearsal", "--scope", "submit").split()[0]
        arguments = json.dumps({"order_id": 1, "member_id": "s-0"}).encode()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Prefer": "wait=30"}
        answer = json.loads(self._get("WEB_PORT", "/v1/commands/orders.options", headers, arguments))
        if answer["outcome"] != "done":
            raise WrongResult(f"HTTP answers {answer}")
        login = base64.b64encode(self._secret("flower_login").encode()).decode()
        until = time.monotonic() + FLOWER_TIMEOUT
        while True:
            page = self._get("FLOWER_PORT", "/workers?json=1", {"Authorization": f"Basic {login}"})
            names = {worker["hostname"].partition("@")[0] for worker in json.loads(page)["data"]}
            if names >= WORKER_GROUPS.keys():
                break
            if time.monotonic() > until:
                raise WrongResult(f"Flower knows no workers but {names}:\n{self.compose.logs('flower')}")
            time.sleep(0.5)
        for path in ("/metrics", "/readyz"):
            self._get("METRICS_PORT", path, {})
        self._report("HTTP answers a command, Flower shows all workers, metrics are ready")

    def kill_under_load(self, names: list[str]) -> None:
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(self._workload.send)
            for name in names:
                self.compose.kill(name)
                took = self.compose.wait_until_healthy(name, HEALTHY_TIMEOUT)
                self._report(f"{name}: kill -9, healthy again after {took:.0f} s")
            self._report(f"{self._workload.orders} commands sent, {sending.result()} tries repeated")

    def check_effects(self) -> None:
        self._workload.check()
        self._report(f"{self._workload.orders} orders cancelled: nothing lost, nothing doubled")
        self._python("worker-emails", "audit")
        self._report("audit is clean")

    def check_quiet(self) -> None:
        self._python("worker-emails", "doctor")
        time.sleep(QUIET_SECONDS)  # what still logs errors now will go on doing so
        for name in self.compose.lasting:
            lines = self.compose.recent_logs(name, QUIET_SECONDS).splitlines()
            if errors := [line for line in lines if ERROR_LINE.search(line)]:
                raise WrongResult(f"{name} keeps logging errors:\n" + "\n".join(errors[:5]))
        self._report("doctor is clean, no service logs errors")

    def restore_backup(self) -> None:
        """Follow the page docs/operate.md: back up, start with empty volumes, restore."""
        self._python("worker-emails", "backup", BACKUP)
        dump = self._checkout / "unwind.dump"
        self._podman("cp", f"{self.compose.container('worker-emails')}:{BACKUP}", str(dump))
        self.compose.down("postgres", "redis")
        self.compose.up(self._report, "postgres", "redis")
        self.compose.run_once("worker-emails", RESTORE, dump)
        self.compose.down()
        self.compose.up(self._report)
        self._report("Restored a backup into empty volumes.")
        self.check_effects()
        self.check_quiet()

    def stop(self) -> None:
        for name in reversed(self.compose.lasting):
            took, code = self.compose.stop(name)
            self._report(f"{name}: stopped after {took:.1f} s with code {code}")
            if code not in {0, 143}:
                raise WrongResult(f"{name} did not end within its grace period:\n{self.compose.logs(name)}")

    def _python(self, service: str, *words: str) -> str:
        done = self.compose.exec(service, "python", "-m", "workers", *words)
        if done.returncode:
            raise WrongResult(f"{' '.join(words)} ended with code {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def _get(self, port: str, path: str, headers: dict[str, str], body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self._ports[port]}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - http
            answer: bytes = response.read()
        return answer

    def _secret(self, name: str) -> str:
        return (self._checkout / "deploy" / "secrets" / name).read_text().strip()

    def _published(self, secret: str, port: str) -> str:
        """The address in a secret, as this host sees it."""
        head, _, rest = self._secret(secret).rpartition("@")
        return f"{head}@127.0.0.1:{self._ports[port]}/{rest.partition('/')[2]}"


def copy_checkout(target: Path) -> None:
    """Copy what git knows or would add, as a clone made with umask 077."""
    command = ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        source, copy = CHECKOUT / name, target / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copyfile(source, copy)
            copy.chmod(0o700 if os.access(source, os.X_OK) else 0o600)
