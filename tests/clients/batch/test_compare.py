import json
import math
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from sightline import UsageError
from sightline.calls import PredictOptions

from clients.batch.compare import Pair, compare_models, compared, mcnemar, options_of, tallied, with_truths
from tests.clients.shades import Service, png

LABELS = ["T-shirt/top", "Bag"]


def test_mcnemar_is_the_exact_binomial_for_few_and_chi_squared_for_many() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(1, 7) == pytest.approx(2 * (1 + 8) / 256)  # 2 (C(8,0) + C(8,1)) / 2^8
    # Fagerland, Lydersen, Laake 2013, table 1 (airway hyper-responsiveness): 1 and 7 discordant pairs, exact p = 0.0703
    assert round(mcnemar(7, 1), 4) == 0.0703
    assert mcnemar(900, 1000) == pytest.approx(math.erfc(math.sqrt(99**2 / 1900 / 2)))
    exact = 2 * sum(math.comb(1000, k) for k in range(470 + 1)) / 2**1000
    assert mcnemar(470, 530) == pytest.approx(exact, rel=0.01)


def test_agreement_flips_and_accuracy_are_counted() -> None:
    pairs = [Pair("1", "cat", "cat", "cat"), Pair("2", "cat", "dog", "dog"), Pair("3", "dog", "dog", "cat"),
             Pair("4", "dog", "cat", ""), Pair("5", None, "cat", "cat")]  # fmt: skip
    found = compared("a", "b", tallied(pairs))
    assert (found.pictures, found.failed, found.agreement) == (5, 1, 0.5)
    assert found.flips == [("cat", "dog", 1), ("dog", "cat", 1)]
    assert (found.with_truth, found.accuracy_a, found.accuracy_b) == (3, 1 / 3, 2 / 3)
    assert (found.only_a, found.only_b, found.p_value) == (0, 1, 1.0)
    assert compared("a", "b", {Pair("1", "cat", "cat", ""): 1}).p_value is None


def test_folders_named_like_labels_are_the_truth() -> None:
    pairs = [Pair("x/t_shirt_top/1", "T-shirt/top", "Bag", ""), Pair("x/bag/2", "Bag", "Bag", ""),
             Pair("x/other/3", "Bag", "Bag", "")]  # fmt: skip
    assert [pair.truth for pair in with_truths(Counter(pairs), LABELS)] == ["T-shirt/top", "Bag", ""]
    assert [pair.truth for pair in with_truths(Counter([Pair("downloads/1", "Bag", "Bag", "")]), LABELS)] == [""]


def test_a_comparison_of_many_pictures_is_as_small_as_one_of_few() -> None:
    pairs = (Pair(f"x/{('bag', 'coat')[n % 2]}/{n}", "Bag", "Coat" if n % 4 else "Bag", "") for n in range(100_000))
    tally = tallied(pairs)
    assert len(tally) == 3
    found = compared("a", "b", with_truths(tally, ["Bag", "Coat"]))
    assert (found.pictures, found.agreement, found.accuracy_a, found.accuracy_b) == (100_000, 0.25, 0.5, 0.75)
    assert found.flips == [("Bag", "Coat", 75_000)]


def test_two_models_are_compared_over_a_folder(service: Service, tmp_path: Path) -> None:
    for shade, gray in (("black", 10), ("dark", 100), ("white", 150)):
        (tmp_path / shade).mkdir()
        (tmp_path / shade / "1.png").write_bytes(png(gray))
    arguments = ["shades", "shades@1", str(tmp_path), "--url", service.url]
    result = CliRunner().invoke(compare_models, [*arguments, "--json"])
    found = json.loads(result.output)
    assert (found["agreement"], found["with_truth"], found["accuracy_a"]) == (1.0, 3, 2 / 3)  # `white` is light
    text = CliRunner().invoke(compare_models, arguments)
    assert "agreement: 100.00%" in text.output
    assert "McNemar's test: p = 1, may be chance" in text.output
    (tmp_path / "black" / "bad.png").write_bytes(b"text")
    assert CliRunner().invoke(compare_models, arguments).exit_code == 1


def test_names_of_models_are_checked(service: Service, tmp_path: Path) -> None:
    assert (options_of("a"), options_of("a@3")) == (PredictOptions("a", 1), PredictOptions("a", 1, 3))
    for name in ("@3", "a@x", "a@٣", "a@9223372036854775808"):
        with pytest.raises(UsageError):
            options_of(name)
    arguments = [str(tmp_path), "--url", service.url]
    unknown = CliRunner().invoke(compare_models, ["shades", "nobody", *arguments]).exception
    assert isinstance(unknown, UsageError)
    assert unknown.code == "unknown_model"
    assert isinstance(CliRunner().invoke(compare_models, ["shades", "shades", *arguments]).exception, UsageError)
