"""Tests of deploy/redis/users.acl.example on the embedded Valkey, and on a redis-server that is installed."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from workers.embedded.binaries import find_valkey_server
from workers.embedded.processes import wait_until
from workers.settings import CHECKOUT

EXAMPLE = CHECKOUT / "deploy" / "redis" / "users.acl.example"
INSTALLED = shutil.which("redis-server")
SERVERS = [find_valkey_server(), *([Path(INSTALLED)] if INSTALLED else [])]
KNOWS_CLIENT_SETINFO = (7, 2)

HANDSHAKE = ("PING", "CLIENT SETNAME unwind", "SELECT 1", "SELECT 0", "INFO server")
REPLY_QUEUE = "1f0c.reply.celery.pidbox"
ALLOWED = {
    "producer": ("LPUSH commands x", "LLEN commands", "SADD _kombu.binding.commands x", "MULTI", "EXEC"),
    "asker": ("GET celery-task-meta-x", "MGET celery-task-meta-x", "SUBSCRIBE celery-task-meta-x"),
    "worker": (
        "BLMOVE commands taken RIGHT LEFT 0.01",
        "EVAL return{KEYS[1]} 1 x",
        "SET unwind:watched 1",
        "SETEX celery-task-meta-x 60 x",
        "PUBLISH celery-task-meta-x x",
        "LREM taken 1 x",
        "LRANGE commands 0 -1",
        "KEYS unwind*",
        "SCAN 0",
        "ZADD unacked_index 1 x",
    ),
    "flower": (
        f"BRPOP {REPLY_QUEUE} 0.01",
        f"DEL {REPLY_QUEUE}",
        "PUBLISH /0.celery.pidbox x",
        "SADD _kombu.binding.reply.celery.pidbox x",
        "SMEMBERS _kombu.binding.celery.pidbox",
        "LLEN commands",
        "LRANGE commands 0 -1",
        "TIME",
        "PSUBSCRIBE /0.celeryev/*",
    ),
    "ops": ("CONFIG GET maxmemory", "ACL WHOAMI", "CLIENT LIST"),
}
ADMINISTRATION = ("CLIENT KILL ID 1", "CLIENT PAUSE 1", "CONFIG GET *", "ACL LIST", "FLUSHALL", "SHUTDOWN NOSAVE")
REFUSED = {
    "producer": (*ADMINISTRATION, "RPOP commands", "LPUSH sweeps x", "KEYS *", "GET celery-task-meta-x"),
    "asker": (*ADMINISTRATION, "LPUSH commands x", "GET commands", "SET celery-task-meta-x x"),
    "worker": ADMINISTRATION,
    "flower": (*ADMINISTRATION, "BRPOP commands 0.01", "LPUSH commands x", "DEL commands", "SET x y"),
}


@pytest.fixture(scope="module", params=SERVERS, ids=lambda program: program.name)
def socket(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("acl")
    path = folder / "socket"
    words = ["--port", "0", "--unixsocket", str(path), "--aclfile", str(EXAMPLE), "--save", "", "--dir", str(folder)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([request.param, *words], stdout=log, stderr=log)
    try:
        assert wait_until(lambda: path.exists() or server.poll() is not None, 20)
        assert server.poll() is None, (folder / "log").read_text()
        yield path
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()


def connect(socket: Path, user: str) -> Any:
    # RESP2, in which SUBSCRIBE has an answer like any other command.
    return closing(
        redis.Redis(
            unix_socket_path=str(socket),
            username=f"unwind-{user}",
            password=f"{user}-secret",
            protocol=2,
            socket_timeout=5,
            single_connection_client=True,
        )
    )


@pytest.mark.parametrize("user", sorted(ALLOWED))
def test_users_may_do_what_their_programs_do(socket: Path, user: str) -> None:
    with connect(socket, user) as client:
        version = tuple(int(part) for part in re.findall(r"\d+", client.info("server")["redis_version"])[:2])
        library = ("CLIENT SETINFO LIB-NAME redis-py",) if version >= KNOWS_CLIENT_SETINFO else ()
        for command in (*HANDSHAKE, *library, *ALLOWED[user]):
            client.execute_command(*command.split())


@pytest.mark.parametrize(("user", "command"), [(user, command) for user in REFUSED for command in REFUSED[user]])
def test_users_may_do_nothing_else(socket: Path, user: str, command: str) -> None:
    with connect(socket, user) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


def test_every_user_is_tested(socket: Path) -> None:
    with connect(socket, "ops") as client:
        users = {name.removeprefix("unwind-") for name in client.acl_users()}
    assert users == {"default", *ALLOWED}
