from clients.batch.truth import known_truths, plain_label


def test_a_truth_column_counts_more_than_folders() -> None:
    truths = known_truths([("bag/1", "Coat"), ("bag/2", "")], ["Bag", "Coat"])
    assert [truths.of("bag/1", "coat"), truths.of("bag/2", ""), truths.of("bag/3", "Hat")] == ["Coat", "", "Hat"]


def test_labels_are_compared_by_their_letters_and_digits() -> None:
    assert plain_label("Ankle boot") == "ankleboot"
    assert plain_label("T-shirt/top") == "tshirttop"
