# How does Unwind become one image, the same for every process of an installation?
#
# No Docker daemon was at hand where this was written: tests/test_containers.py checks these files as text, nobody has
# built the image there. The first build is yours; docs/operate.md says what to look at.

FROM python:3.12.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    PYTHONPATH=/app \
    PATH=/venv/bin:$PATH \
    UNWIND_DATA=/data \
    UNWIND_LOG_FORMAT=json

# A uid with a name (PostgreSQL's tools want one) that owns nothing but /data.
RUN groupadd --gid 10001 unwind \
    && useradd --uid 10001 --gid unwind --no-create-home --home-dir /data --shell /usr/sbin/nologin unwind \
    && install --directory --owner=unwind --group=unwind --mode=700 /data

WORKDIR /app

# Before the code, so that a change of code does not install everything again. Only what the lock names, by its hash.
COPY requirements.lock ./
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement requirements.lock

COPY pyproject.toml ./
COPY flowerconfig.py ./
COPY policies ./policies
COPY models ./models
COPY tasks ./tasks
COPY schedules ./schedules
COPY workers ./workers
RUN python -m compileall -q policies models tasks schedules workers

USER unwind
VOLUME /data

# Celery puts unfinished work back on TERM; compose waits longer than that takes (stop_grace_period).
STOPSIGNAL SIGTERM
ENTRYPOINT []
CMD ["python", "-m", "workers", "--help"]
