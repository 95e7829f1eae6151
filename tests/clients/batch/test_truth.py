import unicodedata

from clients.batch.truth import Spelling, known_truths, plain_label


def test_a_truth_column_counts_more_than_folders() -> None:
    truths = known_truths([("bag/1", "Coat"), ("bag/2", "")], ["Bag", "Coat"])
    assert [truths.of("bag/1", "coat"), truths.of("bag/2", ""), truths.of("bag/3", "Hat")] == ["Coat", "", "Hat"]


def test_labels_are_compared_by_their_letters_and_digits() -> None:
    assert plain_label("Ankle boot") == "ankleboot"
    assert plain_label("T-shirt/top") == "tshirttop"


def test_folders_of_a_mac_are_labels_too() -> None:
    folder = unicodedata.normalize("NFD", "고양이")
    truths = known_truths([(f"{folder}/1", ""), ("개\\2", "")], ["고양이", "개", "café"])
    assert [truths.of(f"{folder}/1", ""), truths.of("x\\개\\2", "")] == ["고양이", "개"]
    assert plain_label("cafe\u0301") == "café"


def test_labels_that_differ_in_signs_alone_are_told_apart() -> None:
    spelling = Spelling.of_labels(["C", "C++", "C#", "+", "Hat, blue"])
    assert [spelling.of(name) for name in ("C", "C++", "c", "+", "-", "hat blue", "x")] == [
        "C", "C++", None, "+", None, "Hat, blue", None,
    ]  # fmt: skip
