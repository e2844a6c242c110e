"""Wrong files and arguments: each has an error that a person can act on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from quotaguard import ConfigurationError, Fallback, Guard, Limit, Price, Tier, Wait, config

JOURNALED = Guard(journal="memory://")

# What is written, and words that the error has besides the file's name.
WRONG = [
    ("limits = [", "is not TOML"),
    ("limits = ['1 token/day']\nlimits = []", "is not TOML"),
    ("limit = ['10k tokens/day']", "unknown key 'limit' in the top level; did you mean 'limits'?"),
    ("clock = 'fake'", "unknown key 'clock'"),
    ("limits = '10k tokens/day'", "limits is a list such as ['10k tokens/day'], not '10k tok"),
    ("limits = 10", "limits is a list such as ['10k tokens/day'], not 10"),
    ("limits = ['plenty']", "cannot read the limit 'plenty'; examples: '10k tokens/day'"),
    ("limits = [10]", "cannot read the limit 10; examples:"),
    ("limits = ['10 words/day']", "unknown metric 'words'; known: requests, tokens"),
    ("limits = ['5 tokens/day in Mars/Base']", "unknown time zone 'Mars/Base'"),
    ("limits = ['5 tokens/hour in UTC']", "only calendar windows have a time zone"),
    ("limits = ['5 tokens/day burst 9']", "'rolling day' makes it a bucket"),
    ("limits = ['5 tokens/day', '6 tokens/day']", "'5 tokens/day' and '6 tokens/day' limit the s"),
    ("backend = 'mysql://host'", "no backend for 'mysql://'; known: memory://"),
    ("backend = 'memory://here'", "the memory backend's URL is 'memory://', not 'memory://here'"),
    ("backend = 5", "a backend is a URL, a client of redis-py or a Backend, not 5"),
    (
        "on_backend_error = 'ignore'",
        "on_backend_error is 'refuse', 'allow' or 'local', not 'ignore'",
    ),
    ("anonymous = ''", "anonymous is a non-empty string or None, not ''"),
    ("anonymous = true", "anonymous is a non-empty string or None, not True"),
    ("default_tier = 'gold'", "unknown tier 'gold'; known:"),
    ("default_tier = 1", "default_tier is a non-empty string or None, not 1"),
    ("default_tier = 'gold'\n[tiers.free]", "unknown tier 'gold'; known: free"),
    ("when_exceeded = 'refuse'", "when_exceeded is a list, not 'refuse'"),
    ("when_exceeded = ['retry']", 'a policy is "refuse", {fallback = "model"} or {wait = 30}, not'),
    ("when_exceeded = [30]", "not 30"),
    ("when_exceeded = [{}]", "when_exceeded: a policy is"),
    ("when_exceeded = [{wait = 1, fallback = 'x'}]", "when_exceeded: a policy is"),
    ("when_exceeded = [{retry = 3}]", "not {'retry': 3}"),
    ("when_exceeded = [{wait = 'long'}]", "when_exceeded: max_seconds is a number of seconds, not"),
    ("when_exceeded = [{wait = true}]", "not True"),
    ("when_exceeded = [{wait = 0}]", "max_seconds is > 0 and finite, not 0"),
    ("when_exceeded = [{wait = inf}]", "max_seconds is > 0 and finite, not inf"),
    ("when_exceeded = [{fallback = ''}]", "when_exceeded: Fallback takes the names of models"),
    ("when_exceeded = [{fallback = []}]", "when_exceeded: Fallback takes the names of models"),
    ("when_exceeded = [{fallback = ['a', 4]}]", "not ('a', 4)"),
    ("when_exceeded = ['refuse', {wait = 3}]", "nothing is tried after Refuse()"),
    ("when_exceeded = [{wait = 3, fair = 1}]", "when_exceeded: fair is True or False, not 1"),
    ("when_exceeded = [{fallback = 'x', fair = true}]", "when_exceeded: a policy is"),
    *(
        (f"[tiers.free]\n{key} = {value}", f"tier 'free': {message}")
        for key, message in (
            ("priority", "a priority is a number such as 1"),
            ("weight", "weight is a number from 1e-6 to 1e6, not"),
        )
        for value in ("nan", "inf", "-inf", "1e308", "true", "'high'", f"1{400 * '0'}")
    ),
    ("[tiers.free]\nweight = 0", "tier 'free': weight is a number"),
    ("limits = ['50 concurrent per org drawing 10%']", "calls in flight are not drawn ahead"),
    ("tiers = ['free']", "tiers holds a table for each tier, not ['free']"),
    ("[tiers]\nfree = '10k tokens/day'", "tiers.free is a table, not '10k tokens/day'"),
    ("[tiers.free]\nlimit = []", "unknown key 'limit' in tiers.free; did you mean 'limits'?"),
    ("[tiers.free]\nlimits = '1 token/day'", "tier 'free': limits is a list"),
    ("[tiers.free]\nlimits = ['plenty']", "tier 'free': cannot read the limit 'plenty'"),
    ("[tiers.free]\nmodels = 'gpt-4o'", "tier 'free': models is a list of names, not 'gpt-4o'"),
    ("[tiers.free]\nmodels = ['']", "tier 'free': models is a list of names, not ['']"),
    ("[tiers.free]\nmodels = 4", "tier 'free': models is a list of names, not 4"),
    ("[tiers.free]\nwhen_exceeded = 'refuse'", "tiers.free.when_exceeded is a list, not 'refuse'"),
    ("[tiers.free]\nwhen_exceeded = [{wait = -1}]", "tiers.free.when_exceeded: max_seconds is > 0"),
    ("[tiers.'']\nlimits = []", "a tier's name is a non-empty string, not ''"),
    (
        "limits = ['5 tokens/day']\n[tiers.free]\nlimits = ['6 tokens/day']",
        "tier 'free' and the guard together: '6 tokens/day' and '5 tokens/day'",
    ),
    ("strict = 'yes'", "strict is true or false, not 'yes'"),
    ("count_unmetered = 1", "count_unmetered is true or false, not 1"),
    ("ask_for_usage = 'no'", "ask_for_usage is true or false, not 'no'"),
    ("lease_seconds = '15 min'", "lease_seconds is a number > 0, not '15 min'"),
    ("lease_seconds = inf", "lease_seconds is a number > 0 and finite, not inf"),
    ("output_guess = inf", "output_guess is a number > 0 and finite, not inf"),
    ("output_guess = 0", "output_guess is a number > 0, not 0"),
    ("reserve_output = 'most'", "reserve_output is 'max', 'learned', a number of tokens"),
    ("count = 'roughly'", "count is 'exact' or 'when_close', not 'roughly'"),
    ("mode = 'watch'", "mode is 'enforce' or 'observe', not 'watch'"),
    ("unknown_price = 'free'", "unknown_price is 'refuse' or 'warn', not 'free'"),
    ("warn_at = 80", "warn_at is a share such as 0.8, or some, not 80"),
    ("warn_at = [0.5, '80%']", "warn_at is a share such as 0.8, or some, not [0.5, '80%']"),
    ("journal = 'redis://here'", "a journal goes to a file of JSON lines such as 'usage.jsonl'"),
    ("journal = 7", "'sqlite:///usage.db', 'memory://' or a callable, not 7"),
    ("prices = 3", "prices maps models to prices, not 3"),
    ("prices = {gpt = 3}", "prices['gpt']: a price is like {input = 0.15, output = 0.60}, not 3"),
    ("prices = {gpt = {input = '3'}}", "prices['gpt']: a price is a number of dollars per million"),
    ("prices = {gpt = {input = -3}}", "not input=-3"),
    (
        "prices = {gpt = {inputs = 3}}",
        "a price is like {input = 0.15, output = 0.60}, not {'inputs",
    ),
    (
        "prices = {gpt = {input = 3, above = 9}}",
        "goes with longer, the price beyond it; not above=9",
    ),
    (
        "prices = {gpt = {input = 3, above = 9, longer = 5}}",
        "prices['gpt']: a price is like {input",
    ),
    ("prices = {'' = {input = 3}}", "prices maps names of models to prices, not ''"),
    ("limits = [{limits = '5 tokens/day'}]", "a limit is a text or a table with limit and any of"),
    (
        "limits = [{limit = '5 tokens/day', weights = {cache = 0}}]",
        "weights are any of cached, cache",
    ),
    (
        "limits = [{limit = '5 tokens/day', weights = {cached = -1}}]",
        "the weight of cached is a num",
    ),
    ("limits = [{limit = '$5/day', weights = {cached = 0}}]", "weights are for limits on tokens"),
    (
        "limits = [{limit = '5 tokens/day', on_expire = 'keep'}]",
        "on_expire is keep_input, keep_all",
    ),
    ("limits = ['5 concurrent/day']", "'5 concurrent' has no period and no burst, not 'day'"),
    ("limits = ['5 tokens/fortnight']", "cannot read the limit '5 tokens/fortnight'"),
    ("limits = ['-5 tokens/day']", "cannot read the limit '-5 tokens/day'"),
    ("limits = ['5 tokens/day per team']", "cannot read the limit '5 tokens/day per team'"),
    ("limits = ['€5/day']", "cannot read the limit '€5/day'; examples:"),
    ("limits = ['5 tokens/minute drawing 10%']", "a user's own limit has no draw_ahead"),
    ("backend = 'sqlite://'", "a file of this folder is 'sqlite:///quota.db'"),
    ("backend = 'sqlite:///a.db?time=5'", "the only option '?timeout=5'"),
    (
        "when_exceeded = [{fallback = 'x', at = 80}]",
        "at is a share of the limit such as 0.8, not 80",
    ),
    ("when_exceeded = [{fallback = 'x', adapt = {y = {}}}]", "adapt maps models of the Fallback"),
    ("[tiers.free]\nwarn_at = 2", "tier 'free': warn_at is a share such as 0.8, or some, not 2"),
    ("[tiers.free]\nwhen_not_allowed = 'deny'", "tiers.free.when_not_allowed: a policy is"),
    ("[tiers.free]\nwhen_not_allowed = {wait = 3}", "tier 'free': when_not_allowed is Refuse() or"),
    (
        "[tiers.free]\nmodels = ['a']\nwhen_not_allowed = {fallback = 'b'}",
        "tier 'free': when_not_allowed names 'b', which is not among its models: a",
    ),
    (
        "[tiers.free]\nwhen_exceeded = ['refuse', 'refuse']",
        "tier 'free': when_exceeded: nothing is",
    ),
    ("users = ['ann']", "users holds a table for each user, not ['ann']"),
    ("[users.ann]\ntier = 'gold'", "users.ann: unknown tier 'gold'; known: default"),
    ("[users.ann]\ntier = ['free']", "users.ann: unknown tier ['free']; known: default"),
    ("[users.ann]\nlimit = []", "unknown key 'limit' in users.ann; did you mean 'limits'?"),
    ("[users.ann]\nlimits = ['much']", "users.ann: tier 'default', overridden: cannot read the"),
    ("[orgs.acme]\nmodels = 'gpt-4o'", "orgs.acme: tier 'default': models is a list of names, not"),
    ("orgs = 5", "orgs holds a table for each org, not 5"),
    ("[orgs]\nacme = 'pro'", "orgs.acme is a table, not 'pro'"),
]


@pytest.mark.parametrize(("text", "words"), WRONG, ids=[text for text, _ in WRONG])
def test_wrong_files(text: str, words: str, tmp_path: Path) -> None:
    """The error names the file, the value, and what would be right."""
    file = tmp_path / config.FILE
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=re.escape(words)) as refused:
        config.load_guard(file)
    assert str(refused.value).startswith(str(file))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Guard(tiers=Tier("free")),
            "tiers is a list of Tier objects, not Tier(name='free'",
        ),
        (lambda: Guard(tiers={"free": 1}), "tiers is a list of Tier objects, not {'free': 1}"),
        (lambda: Guard(tiers=["free"]), "tiers holds Tier objects, not 'free'"),
        (lambda: Guard(tiers=[Tier("a"), Tier("a")]), "two tiers are named 'a'"),
        (lambda: Guard(tiers=5), "tiers is a list of Tier objects, not 5"),
        (lambda: Guard(limits=None), "limits is a list such as ['10k tokens/day'], not None"),
        (lambda: Guard(limits=Limit(1, "tokens", "day")), "limits is a list such as"),
        (lambda: Guard(hooks=print), "hooks is a list of callables, not <built-in function print>"),
        (lambda: Guard(hooks=[5]), "a hook is a callable that takes an event, not 5"),
        (lambda: Guard(clock=5), "clock is a quotaguard.clock.Clock, not 5"),
        (lambda: Guard(strict="yes"), "strict is true or false, not 'yes'"),
        (lambda: Guard(tier_of="free"), "tier_of is a callable of the identity, not 'free'"),
        (lambda: Guard(tier_seconds=0), "tier_seconds is a number > 0, not 0"),
        (lambda: Guard(identity_hash="secret"), "identity_hash is a secret of bytes or a callable"),
        (lambda: Guard(identity_hash=b""), "identity_hash is a secret of bytes or a callable"),
        (lambda: Guard(prices={5: Price(1)}), "prices maps names of models to prices, not 5"),
        (
            lambda: Guard(when_exceeded="refuse"),
            "when_exceeded is a list of policies, not 'refuse'",
        ),
        (
            lambda: Guard(backend=None),
            "a backend is a URL, a client of redis-py or a Backend, not N",
        ),
        (lambda: Guard().update(tiers=Tier("a")), "tiers is a list of Tier objects"),
        (lambda: Guard().update(default_tier="gold"), "unknown tier 'gold'; known: default"),
        (lambda: Guard().update(tier_of=5), "tier_of is a callable of the identity, not 5"),
        (lambda: Guard().peek(tier="gold"), "unknown tier 'gold'; known: default"),
        (lambda: Guard().report(), "a report needs a journal: Guard(journal='usage.jsonl')"),
        (lambda: JOURNALED.report("yesterday"), "a period is 'day', 'week', 'month', 'all', or (s"),
        (
            lambda: JOURNALED.report(by=5),
            "by is any of user, org, tier, model, requested, day, hour",
        ),
        (lambda: JOURNALED.report(by=["team"]), "by is any of user, org, tier, model"),
        (lambda: JOURNALED.report(tz=5), "a time zone is a name such as 'Europe/Paris', not 5"),
        (lambda: Limit("10", "tokens", "day"), "a limit's amount is a number >= 0, not '10'"),
        (lambda: Limit(10, "tokens"), "a period is a number of seconds > 0, not inf"),
        (lambda: Limit(10, ["tokens"], 60), "unknown metric ['tokens']; known: requests, tokens"),
        (lambda: Limit(10, "tokens", "day", tz=5), "a time zone is a name such as 'Europe/Paris'"),
        (lambda: Limit(10, "tokens", "day", models="gpt"), "models is a tuple of patterns such as"),
        (lambda: Limit(10, "tokens", 60, burst=-1), "a burst is a number >= 0, not -1"),
        (
            lambda: Limit(10, "tokens", 60, scope="team"),
            "a scope is user, org or global, not 'team'",
        ),
        (lambda: Tier(5), "a tier's name is a non-empty string, not 5"),
        (lambda: Tier("a", when_exceeded="wait"), "tier 'a': when_exceeded is a list of policies"),
        (lambda: Tier("a", when_exceeded=[5]), "tier 'a': when_exceeded holds Refuse(), Wait(...)"),
        (lambda: Tier("a", when_not_allowed=Wait(5)), "when_not_allowed is Refuse() or Fallback"),
        (lambda: Wait("long"), "max_seconds is a number of seconds, not 'long'"),
        (
            lambda: Wait(5, backoff=5),
            "backoff is a tenacity wait such as",
        ),
        (lambda: Fallback(), "Fallback takes the names of models, not ()"),
        (lambda: Fallback("a", opt_out=5), "opt_out is a callable of the identity, not 5"),
        (lambda: Price("3"), "a price is a number of dollars per million tokens, not input='3'"),
        (
            lambda: Price(3, longer=Price(4)),
            "goes with longer, the price beyond it; not above=None",
        ),
        (lambda: config.load_guard(5), "a guard is described by a file or a mapping, not 5"),
        (lambda: config.load_guard({}, clock=5), "clock is a quotaguard.clock.Clock, not 5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arguments(make: Callable[[], object], words: str) -> None:
    """The error names the argument and the value, and what would be right."""
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        make()
