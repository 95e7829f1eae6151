"""The search for settings, over machines whose speed is a formula."""

from pathlib import Path

import pytest

from serving.contract.errors import UsageError
from serving.gateway.settings import Settings
from serving.tuning.load import Load
from serving.tuning.tune import Trial, Values, _advice, candidates_for, golden_pictures, search


def load(rate: float) -> Load:
    return Load(
        clients=32, seconds=1, per_second=rate, p50=1, p99=2, refused_p50=0, refused_p99=0, statuses={}, broken=0, cpu=0
    )


def test_each_setting_is_tried_with_the_best_of_those_before_it() -> None:
    def measure(values: Values) -> Load:
        return load(100 * values["workers"] + (50 if values["merge_pictures"] == 8 else 0))

    tried: list[Trial] = []
    best = search({"workers": (2, 1, 4), "merge_pictures": (32, 8)}, measure, tried.append)
    assert best.values == {"workers": 4, "merge_pictures": 8}
    assert [trial.load.per_second for trial in tried] == [200, 100, 400, 200, 400, 450, 400, 450]


def test_what_only_seemed_better_because_the_machine_was_slow_before_is_left_alone() -> None:
    machine = iter((50.0, 100.0, 100.0, 100.0))  # it wakes up after the first measurement
    best = search({"workers": (2, 1)}, lambda _: load(next(machine)), lambda _: None)
    assert best.values == {"workers": 2}
    assert best.load.per_second == 100


def test_what_is_hardly_better_is_left_alone() -> None:
    rates = {2: 100.0, 1: 104.0}
    best = search({"workers": (2, 1)}, lambda values: load(rates[values["workers"]]), lambda _: None)
    assert best.values == {"workers": 2}


@pytest.mark.parametrize(("cpus", "workers"), [(1, (0, 2)), (2, (0, 1)), (8, (0, 1, 2, 8))])
def test_defaults_are_tried_first(cpus: int, workers: tuple[int, ...]) -> None:
    candidates = candidates_for(cpus)
    assert candidates["workers"] == workers
    for name, values in candidates.items():
        assert values[0] == Settings.model_fields[name].default


def test_the_advice_names_what_differs_from_the_defaults() -> None:
    values = {"workers": 4, "merge_pictures": 32, "model_threads": 0}
    assert _advice(Trial(values, load(10)), 8).splitlines()[1:] == ["SIGHTLINE_WORKERS=4"]
    assert "defaults" in _advice(Trial({**values, "workers": 0}, load(10)), 8)


def test_a_model_without_examples_needs_pictures(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="golden"):
        golden_pictures(tmp_path, "nothing")
