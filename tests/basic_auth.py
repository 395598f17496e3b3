"""Servers with MLflow's own basic authentication."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import NewServer
from tests.secrets import PASSWORD
from tests.servers import MlflowServer

ROOT = ("root", PASSWORD)
"""The administrator of each of them."""


def started(new_server: NewServer, folder: Path, *, cached: bool = False, python: Path | None = None) -> MlflowServer:
    """One where nobody may do anything but its administrator; `cached` hashes each password only once.

    `python` is that of an older MLflow, which reads the administrator's password from its file only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "basic_auth.ini").write_text(
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        "admin_username = root\n"
        f"{f'admin_password = {PASSWORD}' if python else ''}\n"
        f"auth_cache_ttl_seconds = {3600 if cached else 0}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    return new_server(
        args=["--app-name", "basic-auth"],
        python=python,
        env={
            "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "for the forms of the user interface",
        },
    )
