"""Celery's prefork pool, except that no process inherits the pipes of a process that has exited."""

from __future__ import annotations

from typing import Any

from celery.concurrency import asynpool, prefork


class _FreshPipesPool(asynpool.AsynPool):
    def _process_cleanup_queues(self, proc: Any) -> None:
        """celery.concurrency.asynpool.AsynPool._process_cleanup_queues: close the pipes instead of keeping them.

        A process that ends may leave half a job in its pipe.  Celery closes such a pipe only if the job is still known:
        a lost connection forgets jobs that no process has accepted.  The next process would take the rest of the job
        for the length of another one, and wait for its end forever.
        """
        if proc.dead:  # the pipes are closed already
            return
        self.on_process_down(proc)
        proc.dead = True
        self.destroy_queues(self._find_worker_queues(proc), proc)
        self._queues[self.create_process_queues()] = None


class TaskPool(prefork.TaskPool):
    Pool = _FreshPipesPool
