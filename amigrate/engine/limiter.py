"""How many requests of one class a server is given at once. Found while running, never configured.

What a server can take differs by endpoint, store and machine: one writer is best for SQLite, many for PostgreSQL, and
behind the best there is no slope but a cliff (a pool of database connections runs dry and every request waits 30 s;
seen with 16 writers on one worker). So the limit starts low, one step up or down is tried at a time, and a step is
kept only if the work done per second says so: before a larger limit is given up, the smaller one is measured again,
because what else is asked of the server may have changed meanwhile. Any sign of overload halves the limit.

Work is counted in milliseconds that a server is expected to need: some per request, more for the bytes it moves.
Requests of different weight thus compare. Pure: time comes in from outside.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW = 0.5
"""Seconds of a measurement at least."""
ROUNDS = 3
"""Requests of a measurement at least, for each slot."""
GAIN = 0.1
"""A larger limit must bring at least this share of what it would bring ideally."""
SURE_GAIN = 0.5
"""The same for limits that are large already: a step is small there, what it brings is easily less than what differs
from one measurement to the next, and the cliff is near."""
RELIEF = 0.03
"""A smaller limit must bring this share more: one that is too small costs far more than one that is too large."""
CHANGED = 0.7
"""The share of what it brought before that a limit brings at most when something else has slowed the server down."""
HOLD = 6
"""Measurements to rest after a step that brought nothing; doubled each time."""
LONGEST_HOLD = 48
LARGE = 8
"""Until a first step brings nothing, limits below this are doubled: a big server should not wait for us."""
BREAKS = 3
"""Connections that break within a measurement before that can be overload: a few are the network's."""
BREAKING = 0.25
"""The share of requests that must have broken for it."""


@dataclass(slots=True)
class Window:
    """One measurement."""

    since: float
    work: float = 0.0
    requests: int = 0
    overloads: int = 0
    broken: int = 0
    starved: bool = False
    """True where the limit was not used up: such a measurement says nothing about it."""


@dataclass(slots=True)
class Limiter:
    """The limit for one class of requests to one server."""

    ceiling: int
    limit: int = 2
    floor: int = 1
    """A floor at the ceiling pins the limit, for measurements."""
    in_flight: int = 0
    window: Window | None = None
    base: float = 0.0
    """Work per second measured at the limit we came from."""
    before: int = 0
    """The limit we came from, while a step is being tried; 0 when resting."""
    tried: int = 0
    """A larger limit that brought too little, until the smaller one has been measured again; 0 at other times."""
    reached: float = 0.0
    """The work per second at that larger limit."""
    hold: int = 0
    rest: int = HOLD
    upwards: bool = True
    starting: bool = True
    """True until a step brought nothing."""

    def __post_init__(self) -> None:
        self.limit = min(self.limit, self.ceiling)

    def done(self, now: float, work: float, demand: bool) -> None:
        """A request ended well. `demand` says whether others are waiting for its slot."""
        if self.window is None:
            self.window = Window(now)
        window = self.window
        window.work += work
        window.requests += 1
        window.starved = window.starved or not demand
        if now - window.since >= WINDOW and window.requests >= ROUNDS * self.limit:
            self._judge(window, now)

    def overload(self, now: float) -> None:
        """The server has too much to do. Several answers of one moment count once."""
        if self.window is not None and self.window.overloads:
            self.window.overloads += 1
            return
        self.limit = max(self.floor, self.limit // 2)
        self.before, self.tried, self.starting = 0, 0, False
        self.hold = self.rest
        self.window = Window(now, overloads=1)

    def broke(self, now: float) -> None:
        """A connection broke. One is an accident; where many do, a server drops what it cannot carry."""
        if self.window is None:
            self.window = Window(now)
        window = self.window
        window.broken += 1
        if window.broken >= BREAKS and window.broken > BREAKING * (window.broken + window.requests):
            self.overload(now)

    def _judge(self, window: Window, now: float) -> None:
        rate = window.work / max(now - window.since, 1e-9)
        self.window = Window(now)
        if window.starved:
            self.before = self.tried = 0
        elif self.before:
            self._keep_or_return(rate)
        elif self.tried:
            self._decide(rate)
        elif self.hold > 0:
            self.hold -= 1
        else:
            self._step(rate)

    def _step(self, rate: float) -> None:
        """Try the next limit up, or down where up brought nothing the last time."""
        doubled = self.starting and self.limit < LARGE
        up, down = (self.limit if doubled else max(1, self.limit // 5)), max(1, self.limit // 3)
        wanted = self.limit + up if self.upwards else self.limit - down
        wanted = max(self.floor, min(wanted, self.ceiling))
        if wanted == self.limit:
            self.upwards = not self.upwards
            self._rest()
            return
        self.base, self.before, self.limit = rate, self.limit, wanted

    def _keep_or_return(self, rate: float) -> None:
        if _pays(rate, self.limit, self.base, self.before):
            self.before, self.rest = 0, HOLD
            if self.starting:
                self._step(rate)
            return
        if self.limit > self.before:
            self.tried, self.reached = self.limit, rate
        self.limit, self.before = self.before, 0
        if not self.tried:
            self._turn()

    def _decide(self, rate: float) -> None:
        """The larger limit brought too little. Was it the limit, or does the smaller one bring far less by now too?"""
        tried, self.tried = self.tried, 0
        if rate <= CHANGED * self.base and _pays(self.reached, tried, rate, self.limit):
            self.limit, self.rest = tried, HOLD
        else:
            self._turn()

    def _turn(self) -> None:
        self.upwards, self.starting = not self.upwards, False
        self._rest()

    def _rest(self) -> None:
        """After a whole turn that changed nothing, look again only after a while, and later each time."""
        if self.upwards:
            self.hold = self.rest
            self.rest = min(2 * self.rest, LONGEST_HOLD)


def _pays(rate: float, limit: int, base: float, before: int) -> bool:
    """Whether the work per second at a limit is worth the step from the one before."""
    ideal, gained = limit / before - 1, rate / max(base, 1e-9) - 1
    if ideal < 0:
        return gained >= RELIEF
    return gained >= ideal * (GAIN if before < LARGE else SURE_GAIN)
