"""What a guard's calls added up to, and what they would have under another policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .admin import Administration
from .display import Displayed
from .errors import ConfigurationError
from .limits import Limit
from .resolver import Resolver, TierOf
from .tiers import Tier

if TYPE_CHECKING:  # most guards keep no journal
    from .journal import Journal, Place
    from .report import Period, Report
    from .simulation import Log, Simulation


class Accounts(Displayed, Administration):
    """The part of `quotaguard.Guard` that is about what was."""

    journal: Journal | None
    """Where an entry for each call is kept."""
    _own_journal: bool

    def _journaling(self, to: Place | Journal | None) -> Journal | None:
        """The journal, told of everything from now on."""
        self._own_journal = False
        if to is None:
            return None
        from .journal import Journal

        self._own_journal = not isinstance(to, Journal)
        journal = to if isinstance(to, Journal) else Journal(to)
        self.tell.add(journal.listening(self.clock.now))
        return journal

    def _close_journal(self) -> None:
        """Write what is not written yet; a journal that others may use stays open."""
        if self.journal is not None:
            if self._own_journal:
                self.journal.close()
            else:
                self.journal.flush()

    def keep_journal(self, to: Place | Journal) -> None:
        """Keep a journal from now on, as ``Guard(journal=...)`` does from the beginning.

        Raises:
            ConfigurationError: it is no place for one, or the guard keeps one.
        """
        if self.journal is not None:
            raise ConfigurationError(f"the guard keeps a journal already: {self.journal!r}")
        self.journal = self._journaling(to)

    def report(
        self,
        period: Period = "day",
        by: str | Sequence[str] = ("user", "model"),
        *,
        tz: str = "UTC",
    ) -> Report:
        """Calls, tokens, cost, refusals and what limits saved, from the journal.

        A call belongs to the period in which it was over.

        Args:
            period: the current ``"day"``, ``"week"`` or ``"month"``, ``"all"``, or a pair of start
                and end: seconds since the epoch, dates, datetimes, or None for no end.
            by: any of ``"user"``, ``"org"``, ``"tier"``, ``"model"`` (that served), ``"requested"``
                (the model asked for), ``"day"`` and ``"hour"``.
            tz: the IANA time zone of days, weeks and months.

        Raises:
            ConfigurationError: an argument is wrong, or there is no journal that can be read.
            BackendError: the journal could not be read.
        """
        from .report import period_of, report

        if self.journal is None:
            raise ConfigurationError(
                "a report needs a journal: Guard(journal='usage.jsonl'), "
                "'sqlite:///usage.db' or 'memory://'"
            )
        start, end = period_of(period, tz, self.clock.now())
        entries = self.journal.entries(start, end)
        return report(entries, by, start=start, end=end, tz=tz)

    def simulate(
        self,
        usage_log: Log,
        tiers: Iterable[Tier] | None = None,
        *,
        limits: Iterable[str | Limit | Mapping[str, Any]] | None = None,
        default_tier: str | None = None,
        tier_of: TierOf | None = None,
    ) -> Simulation:
        """What a policy would have done with recorded calls: whom it would have refused, downgraded
        or delayed, and what that would have cost. Nothing is spent, and nobody is told.

        Each call arrives when it did and uses what it did, whichever model serves it. A call that
        was refused then uses what it was estimated to.

        Args:
            usage_log: a journal, its URL or path, or calls as entries or mappings; a file of JSON
                lines may hold lines such as ``{"time": 1767225600, "user": "ann", "model":
                "gpt-4o", "input_tokens": 300, "output_tokens": 100}``.
            tiers, limits, default_tier: the policy; what is left out is this guard's.
            tier_of: who has which tier; else who was in a tier of the same name then is in it, all
                others are in the default tier. The guard's own counts if ``tiers`` is left out.

        Raises:
            ConfigurationError: an argument or a line of the log is wrong.
            BackendError: the log could not be read.
        """
        from .simulation import Simulation, calls_of, replay

        calls, left_out = calls_of(usage_log)
        rules = self.rules.changed(tiers, limits, default_tier)
        own = self.resolver if tiers is None else Resolver(None, 1.0, self.clock.now)
        did, would = replay(self, calls, rules, own.again(tier_of))
        return Simulation(tuple(did), tuple(would), left_out)
