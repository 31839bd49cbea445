"""The application: its state, its routes and its middleware."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from sqlalchemy import text
from starlette.responses import JSONResponse, Response

from models.db import database as db
from models.ddl.grants import WEB_ROLE
from tasks.declarations import all_commands
from web import api, openapi, pages, problems
from web.access import AccessLayer
from web.authentication import KeyRing
from web.problems import Problem
from web.sessions import PATH, Sessions
from web.settings import WebSettings
from web.submitter import Submitter

POOL_SIZE = 8
"""Connections to PostgreSQL; further requests wait for one for five seconds, then get a 503."""


def create_app(settings: WebSettings) -> FastAPI:
    all_commands()
    database = db.connect(settings.database_url, pool_size=POOL_SIZE, role=WEB_ROLE)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.submitter.start()
        yield
        app.state.submitter.close()
        database.dispose()

    app = FastAPI(title="Unwind", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.settings = settings
    app.state.database = database
    app.state.keys = KeyRing(database)
    app.state.submitter = Submitter(database, settings.direct_database_url or settings.database_url)
    registry = CollectorRegistry()
    app.add_middleware(AccessLayer, registry=registry)
    app.state.sessions = Sessions(settings.link_secret, database) if settings.link_secret else None
    problems.install_problem_handlers(app, {PATH: pages.render_problem_page})
    app.include_router(api.router)
    app.include_router(pages.router)

    @app.get("/openapi.json", include_in_schema=False)
    def _openapi() -> Response:
        return JSONResponse(spec)

    @app.get("/metrics", include_in_schema=False)
    def _metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz", include_in_schema=False)
    def _health(request: Request) -> Response:
        with database.transaction() as conn:
            conn.execute(text("SELECT 1"))
        if not request.app.state.submitter.listening.is_set():
            raise Problem(503, "Not listening for answers.")
        return JSONResponse({"status": "ok"})

    spec = openapi.openapi_document(app)
    return app
