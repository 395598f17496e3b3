"""The requests of a move alone, by a bare loop: `python -m benchmarks.bare export|import ADDRESS EXPERIMENTS RUNS`.

Prints the processor seconds that they take: what no client that sends them can do without.
"""

from __future__ import annotations

import sys
import time

from benchmarks import limit
from benchmarks.fake import METRICS, POINTS
from benchmarks.workloads import Workload

CONCURRENCY = 8


def main(what: str, uri: str, experiments: int, runs: int) -> None:
    work = Workload("own", experiments, runs, METRICS, POINTS)
    waves = limit.export(work) if what == "export" else limit.load(work)
    start = time.process_time()
    limit.seconds(uri, waves, CONCURRENCY)
    print(time.process_time() - start)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
