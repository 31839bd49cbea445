"""The rehearsal of several hosts: network namespaces, cut from each other while servers restart, and a failover."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import redis

from tools.rehearsal.podman import CannotRehearse, program, require_root
from tools.rehearsal.workload import Workload
from workers.embedded.binaries import find_postgres_bin, find_valkey_server
from workers.local.process_specs import WORKER_GROUPS
from workers.settings import CHECKOUT

BRIDGE = "unwind-hosts"
ADDRESSES = {
    "db": "10.77.0.10",
    "broker": "10.77.0.11",
    "standby": "10.77.0.12",
    "w1": "10.77.0.21",
    "w2": "10.77.0.22",
}
WORKER_HOSTS = ("w1", "w2")
NOBODY = 65534
READY_TIMEOUT = 60.0
STOP_TIMEOUT = 90.0
PARTITION_SECONDS = 20.0
DATABASE_SETTINGS = "listen_addresses='*'\nunix_socket_directories=''\nmax_connections=200\nwal_keep_size=512MB\n"
SYNCHRONOUS = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"


def run(orders: int, *, report: Callable[[str], None]) -> None:
    require_root()
    for name in ("ip", "iptables", "unshare", "setpriv"):
        program(name)
    with tempfile.TemporaryDirectory(prefix="unwind-hosts-") as folder, _network():
        hosts = Hosts(Path(folder), orders, report)
        try:
            hosts.start()
            hosts.inject_partitions()
            hosts.check_effects()
            hosts.stop()
        finally:
            hosts.kill(*ADDRESSES)


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """A bridge with a namespace for each host."""
    if f"{BRIDGE}:" in _ip("link", "show"):
        raise CannotRehearse(f"There is a network {BRIDGE}: another rehearsal runs, or one was killed. "
                             f"Remove it: ip link del {BRIDGE}; ip netns del {BRIDGE}-db (broker, w1, w2)")  # fmt: skip
    try:
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", "10.77.0.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        for host, address in ADDRESSES.items():
            namespace, device = f"{BRIDGE}-{host}", f"uwh-{host}"
            _ip("netns", "add", namespace)
            _ip("link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("link", "set", device, "master", BRIDGE, "up")
            _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", namespace, "link", "set", "eth0", "up")
            _ip("-n", namespace, "link", "set", "lo", "up")
        yield
    finally:
        for host in ADDRESSES:
            subprocess.run([program("ip"), "netns", "del", f"{BRIDGE}-{host}"], capture_output=True, check=False)
        subprocess.run([program("ip"), "link", "del", BRIDGE], capture_output=True, check=False)


def _ip(*words: str) -> str:
    done = subprocess.run([program("ip"), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRehearse(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Hosts:
    def __init__(self, folder: Path, orders: int, report: Callable[[str], None]) -> None:
        self._folder, self._report = folder, report
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        folder.chmod(0o755)  # PostgreSQL is another user
        databases = f"{ADDRESSES['db']}:5432,{ADDRESSES['standby']}:5432"
        addresses = {"POSTGRES_AT": databases, "REDIS_AT": f"{ADDRESSES['broker']}:6379"}
        make_secrets = [CHECKOUT / "deploy" / "make-secrets", folder / "secrets"]
        subprocess.run(make_secrets, env=os.environ | addresses, check=True, capture_output=True)
        self._workload = Workload(orders, self._secret("database_url"), self._secret("producer_broker_url"))

    def start(self) -> None:
        self._create_database()
        self._start_postgres()
        self._start_valkey()
        self._run("w1", sys.executable, "-m", "workers", "migrate", "--wait", "60")
        self._workload.prepare()
        self._start_standby()
        for host in WORKER_HOSTS:
            self._start_workers(host)
        self._start("w1", "beat", "celery", "-A", "workers.app", "beat")
        self._report("broker, database, its synchronous standby, two hosts with workers, one beat: started")

    def inject_partitions(self) -> None:
        """Combine partitions with restarts of the server on the other side, while commands arrive."""
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(self._workload.send)
            with self._partition("w2", "db"):
                self._processes["valkey"].kill()
                self._processes["valkey"].wait()
                self._start_valkey()
                self._report("w2 is cut from the database; the broker: kill -9, started again")
                time.sleep(PARTITION_SECONDS)
            with self._partition("w1", "broker"):
                self._processes["postgres-db"].send_signal(signal.SIGINT)
                self._processes["postgres-db"].wait(60)
                self._start_postgres()
                self._report("w1 is cut from the broker; PostgreSQL: stopped, started again")
                time.sleep(PARTITION_SECONDS)
            self.kill("w2")
            self._processes["postgres-db"].kill()
            self._processes["postgres-db"].wait()
            self._start_postgres()
            self._report("w2: kill -9 of all its processes; PostgreSQL: kill -9, started again")
            self._start_workers("w2")
            self._await_synchronous_standby()
            self.kill("db")
            with psycopg.connect(self._url("standby"), autocommit=True) as conn:
                conn.execute("SELECT pg_promote()")
            self._report("the database's host: kill -9 of all its processes; its standby: promoted")
            self._report(f"{self._workload.orders} commands sent, {sending.result()} tries repeated")

    def check_effects(self) -> None:
        self._workload.check()
        self._report(f"{self._workload.orders} orders cancelled: nothing lost, nothing doubled")
        self._run("w1", sys.executable, "-m", "workers", "audit")
        self._report("audit is clean")

    def stop(self) -> None:
        started_at = time.monotonic()
        names = [name for name in self._processes if not name.startswith(("postgres", "valkey"))]
        for name in names:
            self._processes[name].terminate()
        for name in names:
            try:
                code = self._processes[name].wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                raise CannotRehearse(f"{name} did not stop within {STOP_TIMEOUT:.0f} s") from None
            if code:
                raise CannotRehearse(f"{name} ended with code {code}:\n{self._log(name)}")
        self._report(f"workers and beat: stopped after {time.monotonic() - started_at:.0f} s")

    def kill(self, *hosts: str) -> None:
        """Send KILL to every process of these hosts."""
        pids = {int(pid) for host in hosts for pid in _ip("netns", "pids", f"{BRIDGE}-{host}").split()}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._processes.values():
            if process.pid in pids:
                process.wait()

    @contextlib.contextmanager
    def _partition(self, host: str, other: str) -> Iterator[None]:
        """Drop every packet between two hosts; connections stay open and silent."""
        rules = (("OUTPUT", "-d"), ("INPUT", "-s"))
        for chain, side in rules:
            self._run(host, program("iptables"), "-A", chain, side, ADDRESSES[other], "-j", "DROP")
        yield
        for chain, side in rules:
            self._run(host, program("iptables"), "-D", chain, side, ADDRESSES[other], "-j", "DROP")

    def _create_database(self) -> None:
        shutil.copytree(programs := find_postgres_bin().parent, copy := self._folder / "install" / programs.name)
        libraries = programs.parent.with_name(f"{programs.parent.name}.libs")
        if libraries.is_dir():  # the wheel's programs look for them three directories up
            shutil.copytree(libraries, self._folder / libraries.name)
        self._postgres = copy / "bin"
        data = self._data_directory("db")
        password = self._folder / "owner_password"
        password.write_text(self._secret("postgres_password"))
        password.chmod(0o644)
        options = ("--username=unwind_owner", f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8")
        self._run("db", *self._as_nobody, str(self._postgres / "initdb"), "-D", str(data),
                  "--locale=C.UTF-8", *options)  # fmt: skip
        with (data / "pg_hba.conf").open("a") as file:
            file.write("host all,replication all 10.77.0.0/24 scram-sha-256\n")
        with (data / "postgresql.conf").open("a") as file:
            file.write(DATABASE_SETTINGS)

    _as_nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")

    def _data_directory(self, host: str) -> Path:
        path = self._folder / f"database-{host}"
        path.mkdir(mode=0o700)
        os.chown(path, NOBODY, NOBODY)
        return path

    def _start_postgres(self, host: str = "db") -> None:
        data = str(self._folder / f"database-{host}")
        self._start(host, f"postgres-{host}", *self._as_nobody, str(self._postgres / "postgres"), "-D", data)

        def answers() -> None:
            with psycopg.connect(self._url(host, "postgres"), connect_timeout=5, autocommit=True) as conn:
                if not conn.execute("SELECT FROM pg_database WHERE datname = 'unwind'").rowcount:
                    conn.execute("CREATE DATABASE unwind")

        self._await(f"postgres-{host}", answers)

    def _start_standby(self) -> None:
        data = str(self._data_directory("standby"))
        options = ("--write-recovery-conf", "--checkpoint=fast", f"--dbname={self._url('db', 'postgres')}")
        self._run("standby", *self._as_nobody, str(self._postgres / "pg_basebackup"), "-D", data, *options)
        self._start_postgres("standby")
        with psycopg.connect(self._url("db"), autocommit=True) as conn:
            conn.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            conn.execute("SELECT pg_reload_conf()")
        self._await_synchronous_standby()

    def _await_synchronous_standby(self) -> None:
        def follows() -> None:
            with psycopg.connect(self._url("db"), connect_timeout=5) as conn:
                if conn.execute(SYNCHRONOUS).fetchone() != (1,):
                    raise psycopg.OperationalError("no synchronous standby follows")

        self._await("postgres-standby", follows)

    def _url(self, host: str, database: str = "unwind") -> str:
        return f"postgresql://unwind_owner:{self._secret('postgres_password')}@{ADDRESSES[host]}:5432/{database}"

    def _start_valkey(self) -> None:
        data = self._folder / "broker"
        data.mkdir(exist_ok=True)
        users = self._folder / "secrets" / "redis_users"
        durable = ("--appendonly", "yes", "--save", "", "--maxmemory", "512mb", "--maxmemory-policy", "noeviction")
        options = ("--bind", ADDRESSES["broker"], "--aclfile", str(users), "--dir", str(data), *durable)
        self._start("broker", "valkey", str(find_valkey_server()), *options)
        with redis.Redis.from_url(self._secret("broker_url"), socket_timeout=5) as client:
            self._await("valkey", client.ping)

    def _start_workers(self, host: str) -> None:
        for group, queues in WORKER_GROUPS.items():
            words = ("celery", "-A", "workers.app", "worker", "-Q", ",".join(queues), "-n", f"{group}@%h", "-c", "2")
            self._start(host, f"{host}-{group}", *words, "--without-gossip", "--without-mingle")

    def _start(self, host: str, name: str, *command: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                self._on(host, *command), env=self._environment(host), cwd=CHECKOUT, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def _run(self, host: str, *command: str) -> None:
        done = subprocess.run(
            self._on(host, *command),
            env=self._environment(host),
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CannotRehearse(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stdout}{done.stderr}")

    def _on(self, host: str, *command: str) -> list[str]:
        """The command line on a host, with the host's name."""
        inside = (program("unshare"), "--uts", "/bin/sh", "-c", 'hostname "$0"; exec "$@"', host)
        return [program("ip"), "netns", "exec", f"{BRIDGE}-{host}", *inside, *command]

    def _environment(self, host: str) -> dict[str, str]:
        files = {
            "DATABASE_URL": "database_url",
            "CELERY_BROKER_URL": "broker_url",
            "CELERY_RESULT_BACKEND": "result_backend",
        }
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "PYTHONSAFEPATH": "1",
            "UNWIND_DATA": str(self._folder / f"data-{host}"),
            "UNWIND_LOG_FORMAT": "json",
        } | {f"{name}_FILE": str(self._folder / "secrets" / file) for name, file in files.items()}

    def _await(self, name: str, test: Callable[[], object]) -> None:
        until = time.monotonic() + READY_TIMEOUT
        while True:
            try:
                test()
                return
            except (psycopg.OperationalError, redis.RedisError) as error:
                if time.monotonic() > until:
                    raise CannotRehearse(f"{name} does not answer: {error}\n{self._log(name)}") from None
                time.sleep(0.2)

    def _log(self, name: str) -> str:
        return "\n".join((self._folder / f"{name}.log").read_text(errors="replace").splitlines()[-15:])

    def _secret(self, name: str) -> str:
        return (self._folder / "secrets" / name).read_text().strip()
