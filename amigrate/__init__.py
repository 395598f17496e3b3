"""amigrate moves whole MLflow workspaces: export, import, copy, and proof that nothing was lost.

A **Kind** is one MLflow object kind and lives in one file that knows its endpoints and its meaning. A **Source** yields
records and a **Sink** takes them; a server and an archive are each both. The **engine** moves batches of records of
every kind from a Source to a Sink, and knows nothing of HTTP, disk or MLflow. Export, import and copy are that one walk
with different ends. The **archive** knows paths, envelopes and bytes, and learns from each kind's declared facts where
its documents go.

A server is wherever its address is. A local store (`stores`: a database, a folder of runs) becomes one for as long as
it is needed (`serving`, `local`).

                    cli -> commands, ends      (where everything meets; a `session` is one command at work)
       ┌────────────────────┼───────────────────────────┬──────────────┐
     server/              archive/                    engine/        report
     source.py sink.py    source.py sink.py layout.py  transfer check   │     <- the same two names on both sides
       │                    │                           │              │
     kinds/ ── client/      │                           │              │
       └────────┴───────────┴────────── core/ ──────────┴──────────────┘      (core imports nothing of ours)
"""

__version__ = "0.1.0"
