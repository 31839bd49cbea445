# The image of Unwind, the same for every process of an installation.
#
# `./run rehearse compose` builds it with podman, on Debian's Python 3.11 in the place of the official image.

FROM python:3.12.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    PYTHONPATH=/app \
    PATH=/venv/bin:$PATH \
    UNWIND_DATA=/data \
    UNWIND_LOG_FORMAT=json

# A user with a name, which PostgreSQL's tools require, that owns nothing but /data.
RUN groupadd --gid 10001 unwind \
    && useradd --uid 10001 --gid unwind --no-create-home --home-dir /data --shell /usr/sbin/nologin unwind \
    && install --directory --owner=unwind --group=unwind --mode=700 /data

WORKDIR /app

# Before the code, so that a change of code reuses the layer. Only locked packages, checked by hash.
COPY requirements.lock ./
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement requirements.lock

COPY LICENSE ./
COPY pyproject.toml ./
COPY flowerconfig.py ./
COPY policies ./policies
COPY models ./models
COPY tasks ./tasks
COPY schedules ./schedules
COPY workers ./workers
COPY web ./web
# A clone made with umask 077 has files that only its owner can read.
RUN chmod -R u=rwX,go=rX /app && python -m compileall -q policies models tasks schedules workers web

# No VOLUME: processes that keep no files would get an anonymous one at each creation.
USER unwind

# On TERM Celery requeues unfinished work; compose waits longer than that takes (stop_grace_period).
STOPSIGNAL SIGTERM
ENTRYPOINT []
CMD ["python", "-m", "workers", "--help"]
