"""Factors from what was billed: upward, bounded, robust, forgetting."""

from __future__ import annotations

import math
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotaguard.counting.calibration import BOUNDS, Calibration, Factor, feature_class
from quotaguard.counting.histogram import Histogram
from quotaguard.counting.parts import Parts
from quotaguard.errors import ConfigurationError

MODEL = "claude-sonnet-4-5"
TEXT = "messages text"
TOOLS = "responses tools"


def learnt(ratios: list[float], calibration: Calibration | None = None) -> Calibration:
    """A calibration that saw these ratios of billed to estimated."""
    calibration = calibration or Calibration()
    for ratio in ratios:
        calibration.observe(MODEL, TEXT, 1000, 1000 * ratio)
    return calibration


def spread(seed: int, number: int) -> list[float]:
    """Ratios as Claude's texts show them: around one, some a fifth above."""
    chance = random.Random(seed)
    return [math.exp(chance.gauss(0.0, 0.08)) for _ in range(number)]


def test_nothing_seen_changes_nothing() -> None:
    """An estimate stands until there is something to correct it by."""
    assert Calibration().factor(MODEL, TEXT) == 1.0
    assert Calibration().apply(MODEL, TEXT, 12_345) == 12_345


def test_fifty_answers_leave_few_requests_short() -> None:
    """Over many samples, one request in twenty at most falls short by more than five percent."""
    short, factors = [], []
    for seed in range(20):
        factor = learnt(spread(seed, 50)).factor(MODEL, TEXT)
        later = spread(seed + 1000, 1000)
        short.append(sum(factor < 0.95 * ratio for ratio in later) / len(later))
        factors.append(factor)

    assert sum(short) / len(short) <= 0.035
    assert sum(share > 0.05 for share in short) <= 3
    assert max(factors) < 1.25


def test_exact_formulas_stay_exact() -> None:
    """A hidden prompt in a few requests does not raise the estimate of all the others."""
    assert learnt([1.0] * 45 + [3.0] * 5).factor(MODEL, TEXT) == pytest.approx(1.0)


def test_an_estimate_that_is_too_high_comes_down() -> None:
    """Pictures that were taken for the worst case are mostly smaller."""
    assert 0.3 <= learnt([0.3] * 60).factor(MODEL, TEXT) < 0.35


def test_a_change_at_the_provider_is_followed() -> None:
    """What was seen long ago is forgotten."""
    calibration = learnt([1.0] * 200)
    assert calibration.factor(MODEL, TEXT) == pytest.approx(1.0)

    learnt([1.4] * 100, calibration)
    assert 1.3 < calibration.factor(MODEL, TEXT) <= 1.43
    learnt([1.0] * 300, calibration)
    assert calibration.factor(MODEL, TEXT) == pytest.approx(1.0)


NUMBERS = st.one_of(
    st.floats(), st.integers(-10, 10**400), st.booleans(), st.none(), st.text(max_size=3)
)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=60))
def test_no_input_moves_it_beyond_its_bounds(seen: list[tuple[object, object]]) -> None:
    """Malformed usage, zeros, infinities: the factor stays within its bounds."""
    calibration = Calibration()
    for estimated, billed in seen:
        calibration.observe(MODEL, TEXT, estimated, billed)  # type: ignore[arg-type]

    assert BOUNDS[0] <= calibration.factor(MODEL, TEXT) <= BOUNDS[1]


@pytest.mark.parametrize(
    ("estimated", "billed"),
    [
        (0, 5),
        (5, 0),
        (-1, 5),
        (5, math.nan),
        (math.inf, 5),
        (True, True),
        (1, 1000),
        (1000, 1),
        (1, 10**400),
    ],
)
def test_what_cannot_be_real_usage_is_ignored(estimated: float, billed: float) -> None:
    """It leaves no trace."""
    calibration = Calibration()
    for _ in range(100):
        calibration.observe(MODEL, TEXT, estimated, billed)

    assert calibration.snapshot() == []


def test_one_wild_answer_moves_nothing_once_there_are_some() -> None:
    """However wrong it is."""
    assert learnt([1.0] * 20 + [3.9]).factor(MODEL, TEXT) == pytest.approx(1.0)


def test_kinds_of_requests_and_models_are_told_apart() -> None:
    """Tools say nothing about text, nor one family about the other."""
    calibration = learnt([1.5] * 50)

    assert calibration.factor(MODEL, "messages tools") == 1.0
    assert calibration.factor("gpt-4o", TEXT) == 1.0


def test_dated_names_share_what_is_known() -> None:
    """And the clouds' names of the same model."""
    factor = learnt([1.5] * 50).factor(MODEL, TEXT)

    assert factor > 1.4
    assert learnt([1.5] * 50).factor("claude-sonnet-4-5-20250929", TEXT) == factor
    assert learnt([1.5] * 50).factor("us.anthropic.claude-sonnet-4-5-20250929-v1:0", TEXT) == factor


def test_a_new_model_begins_with_what_its_family_shows() -> None:
    """Until it has shown itself."""
    calibration = learnt([1.2] * 50)

    assert calibration.factor("claude-opus-5", TEXT) > 1.1


def test_exact_formulas_are_not_corrected_by_other_models() -> None:
    """Where counting is an identity, each model speaks for itself."""
    calibration = Calibration()
    for _ in range(50):
        calibration.observe("gpt-4o", "responses tools", 100, 300)

    assert calibration.apply("gpt-4o", TOOLS, 100) == 300
    assert calibration.apply("gpt-5", TOOLS, 100) == 100


def billed(hidden: list[int], calibration: Calibration | None = None) -> Calibration:
    """A calibration that saw bills of a model that is counted exactly, save a hidden prompt."""
    calibration = calibration or Calibration()
    for n, tokens in enumerate(hidden):
        calibration.observe("gpt-4o", TOOLS, 100 + n, 100 + n + tokens)
    return calibration


def test_a_hidden_prompt_is_added_once_two_bills_show_it() -> None:
    """It has one length, whatever the request's: a factor would miss long and short ones."""
    calibration = billed([0] * 60 + [216, 213])

    assert calibration.apply("gpt-4o", TOOLS, 50) == 266
    assert calibration.apply("gpt-4o", TOOLS, 50_000) == 50_216
    assert calibration.snapshot()[0].hidden == 216


def test_a_hidden_prompt_that_is_gone_is_forgotten_at_once() -> None:
    """And leaves next to no trace: requests are not counted too high for months."""
    calibration = billed([216] * 40 + [0])

    assert calibration.apply("gpt-4o", TOOLS, 100) == 100


@pytest.mark.parametrize(
    "hidden",
    [[216], [216, 0, 216], [216, 150], [7, 7], [1_500, 1_500], [-90, -90]],
    ids=["once", "now and then", "unlike", "few", "too many", "less"],
)
def test_what_is_no_hidden_prompt_is_not_added(hidden: list[int]) -> None:
    """One odd bill is an accident, and nobody can add without end."""
    assert billed(hidden).hidden("gpt-4o", TOOLS) == 0


@pytest.mark.parametrize(
    ("model", "features"), [(MODEL, TEXT), ("gpt-4o", "responses unseen file")]
)
def test_only_exact_formulas_show_hidden_prompts(model: str, features: str) -> None:
    """Elsewhere what is missing grows with the request."""
    calibration = Calibration()
    for _ in range(3):
        calibration.observe(model, features, 100, 300)

    assert calibration.hidden(model, features) == 0


def test_the_snapshot_says_what_is_known() -> None:
    """The most observed first: the family, then its models."""
    found = learnt([1.2] * 10).snapshot()

    assert {(item.model, item.features) for item in found} == {("claude", TEXT), (MODEL, TEXT)}
    assert all(isinstance(item, Factor) and item.observations == 10 for item in found)


def test_keys_are_bounded() -> None:
    """Names that users make up fill no memory."""
    calibration = Calibration()
    for n in range(3_000):
        calibration.observe(f"model-{n}", TEXT, 10, 10)

    assert len(calibration.snapshot()) <= 2_000


def test_threads_observe_and_ask_at_once() -> None:
    """Nothing is lost or raised."""
    calibration = Calibration()

    def work() -> None:
        for _ in range(200):
            calibration.observe(MODEL, TEXT, 100, 110)
            calibration.factor(MODEL, TEXT)
            calibration.snapshot()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1.05 < calibration.factor(MODEL, TEXT) < 1.12


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantile": 0.3},
        {"quantile": 1.0},
        {"tolerance": -0.1},
        {"tolerance": 1.0},
        {"bounds": (0.0, 2.0)},
        {"bounds": (1.1, 2.0)},
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    """With what would be right."""
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Calibration(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        (Parts(messages=5), "chat text"),
        (Parts(messages=5, tools=9), "chat tools"),
        (Parts(messages=5, tools=9, schema=3), "chat schema"),
        (Parts(messages=5, tools=9, images=3), "chat image"),
        (Parts(messages=5, images=3, guessed=3), "chat unseen image"),
        (Parts(messages=5, images=3, files=3), "chat file"),
        (Parts(audio=3), "chat audio"),
        (Parts(other=3), "chat other"),
    ],
)
def test_a_request_is_of_the_kind_of_its_least_certain_part(parts: Parts, kind: str) -> None:
    """Requests that miss alike are corrected together."""
    assert feature_class("chat", parts) == kind


def test_quantiles_are_bin_edges_rounded_up() -> None:
    """Within the width of a bin above the true one."""
    histogram = Histogram(growth=1.05, low=1.0, high=1e6)
    for number in range(1, 101):
        histogram.add(number)

    assert 95 <= histogram.quantile(0.95) <= 95 * 1.05
    assert histogram.quantile(1.0) >= 100


def test_an_empty_histogram_has_no_quantile() -> None:
    """Rather an error than a made-up number."""
    with pytest.raises(ValueError, match="empty"):
        Histogram(1.05, 1.0, 10.0).quantile(0.5)


@given(st.lists(st.floats(0.001, 1e9), min_size=1, max_size=300))
def test_a_histogram_stays_small(numbers: list[float]) -> None:
    """Whatever it is fed: bins are limited by the range, weights by their halving."""
    histogram = Histogram(growth=1.5, low=1.0, high=1000.0, max_weight=50.0)
    for number in numbers:
        histogram.add(number)

    assert len(histogram.weights) <= 20
    assert histogram.weight <= 51
    assert 1.0 <= histogram.quantile(0.9) <= 1500
