"""When two runs count as the same without a look at their points."""

from __future__ import annotations

from typing import Any

from amigrate.core.model import Ref
from amigrate.kinds import run_document

HOME = Ref("experiment", "1")
INFO = {"run_id": "a" * 32, "run_name": "a run", "status": "FINISHED", "start_time": 1, "end_time": 2}


def archived(**info: Any) -> str:
    """What an archive's run is compared by, whose document says this of itself."""
    document = {"info": info, "mlflow": {"info": INFO, "params": {}, "tags": {}, "metrics": {"loss": None}}}
    return run_document.facts(run_document.decode(document, "", HOME).doc)


def test_a_run_whose_archive_does_not_say_where_its_series_end_is_the_same_as_none() -> None:
    """The latest point of the one at the server lies at 0, which a listing leaves out."""
    server = {"info": {**INFO, "lifecycle_stage": "active"}, "data": {"metrics": [{"key": "loss"}]}}
    assert archived(series={"loss": {"points": 1, "timestamp": 0, "step": 0}}) == run_document.facts(server)
    assert archived() != run_document.facts(server)
