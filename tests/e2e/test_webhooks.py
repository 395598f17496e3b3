"""Webhooks through the command line: only where named, disabled, without guessed secrets, never twice."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from tests import secrets
from tests.conftest import Cli, NewServer
from tests.fakes.fault_proxy import FaultProxy
from tests.kinds.webhook import EVENTS, HOST, hooks
from tests.rest import Rest
from tests.servers import MlflowServer

KEY = Fernet.generate_key().decode()
HOOK = {"name": "deploy", "url": f"{HOST}/deploy", "events": EVENTS[:1], "status": "ACTIVE"}


def told(cli: Cli, code: int, *args: str | Path) -> Any:
    done = cli(*args, "--json", "--debug")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def secret_of(server: MlflowServer, webhook: dict[str, Any]) -> str | None:
    with closing(sqlite3.connect(server.database)) as database:
        query = "SELECT secret FROM webhooks WHERE webhook_id = ?"
        (kept,) = database.execute(query, (webhook["webhook_id"],)).fetchone()
    return None if kept is None else Fernet(KEY).decrypt(kept).decode()


def test_webhooks(new_server: NewServer, discreet: Cli, elsewhere: Path) -> None:
    """Two equal ones, one that differs in one field, and one whose host the target does not allow."""
    source = new_server(env={"MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"})
    target = new_server(env={"MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": KEY}, warm=False)
    given = elsewhere / "secrets"
    given.write_text(f"deploy: {secrets.TOKEN}\ndepoly: {secrets.TOKEN}\n")
    nothing = lambda method, path: False  # noqa: E731
    with Rest(source.uri) as old, Rest(target.uri) as new, FaultProxy(source.uri, seed=1, only=nothing) as reading:
        for change in ({}, {}, {"description": "of the night"}, {"name": "inside", "url": "https://10.0.0.7/x"}):
            old.post("webhooks", {**HOOK, **change})
        ends = ("copy-all", "--source", reading.uri, "--target")

        summary = told(discreet, 0, *ends, target.uri)
        assert summary["objects"]["webhooks"] == {"excluded": 1}
        assert not [path for _, path in reading.requests if "webhooks" in path]

        only = ("--objects", "webhooks", "--webhook-secrets", given)
        creates = lambda method, path: method == "POST" and path.endswith("/webhooks")  # noqa: E731
        lossy = FaultProxy(target.uri, seed=2, lost_answers=0.5, only=creates)
        with lossy as writing:
            summary = told(discreet, 1, *ends, writing.uri, *only)
        assert lossy.faults["lost_answers"]
        assert summary["objects"]["webhooks"] == {"created": 3, "left behind": 1}
        assert "10.0.0.7" in summary["losses"][0]["reason"]
        said = "\n".join(summary["warnings"])
        assert "webhook 'deploy' is active at the source and disabled at the target" in said
        assert "depoly" in said
        assert "chmod 600" in said
        made = hooks(new, "deploy")
        assert [one["status"] for one in made] == ["DISABLED"] * 3
        assert [secret_of(target, one) for one in made] == [secrets.TOKEN] * 3
        assert sorted(one.get("description", "") for one in made) == ["", "", "of the night"]

        # Without the journal, which is that of the proxy's address, and then with it.
        for _ in range(2):
            summary = told(discreet, 1, *ends, target.uri, "--objects", "all,webhooks")
            assert summary["objects"]["webhooks"] == {"present": 3, "left behind": 1}
        assert len(hooks(new, "deploy")) == 3


def test_what_is_changed_at_the_target_stays_until_the_source_changes(new_server: NewServer, cli: Cli) -> None:
    source, target = new_server(), new_server()
    with Rest(source.uri) as old, Rest(target.uri) as new:
        hook = old.post("webhooks", {**HOOK, "description": "old"})["webhook"]
        copy = ("copy-all", "--source", source.uri, "--target", target.uri, "--objects", "all,webhooks")
        summary = told(cli, 0, *copy)
        assert any("'deploy' has no secret" in warning for warning in summary["warnings"])
        (made,) = hooks(new, "deploy")
        new.patch(f"webhooks/{made['webhook_id']}", {"url": f"{HOST}/ours", "status": "ACTIVE"})
        told(cli, 0, *copy)
        (made,) = hooks(new, "deploy")
        assert (made["url"], made["status"]) == (f"{HOST}/ours", "ACTIVE")
        old.patch(f"webhooks/{hook['webhook_id']}", {"description": "new"})
        told(cli, 0, *copy)
        (made,) = hooks(new, "deploy")
        assert (made["url"], made["status"], made["description"]) == (f"{HOST}/deploy", "ACTIVE", "new")
