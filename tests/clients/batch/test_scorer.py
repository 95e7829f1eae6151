import threading
from pathlib import Path

import numpy as np
import pytest

from clients.batch.errors import ScoringStopped
from clients.batch.rows import FAILED
from clients.batch.scorer import FailureLimit, Scorer
from clients.batch.sources import unreadable
from serving.contract.errors import ModelFailed, Overloaded
from tests.clients.batch.memory import Memory, listed_journal, run_scorer
from tests.clients.shades import Serve, Service, ShadePredictor, noise, png


def test_a_share_of_failures_counts_from_the_hundredth_row() -> None:
    assert FailureLimit(share=0.05).is_passed(6, 100)
    assert not FailureLimit(share=0.05).is_passed(5, 100)
    assert not FailureLimit(share=0.05).is_passed(6, 20)


def test_refusals_slow_it_down_and_lose_nothing(service: Service, tmp_path: Path) -> None:
    service.predictor.trouble = [Overloaded("full") for _ in range(6)]
    source = Memory(300)
    with listed_journal(tmp_path, source) as journal:
        progress = run_scorer(service, journal, source, per_request=10)
        assert (progress.rows, progress.failures) == (300, 0)


def test_a_picture_that_breaks_the_model_is_found_and_its_neighbours_are_answered(serve: Serve, tmp_path: Path) -> None:
    class Touchy(ShadePredictor):
        def predict(self, served, batch, *call):  # type: ignore[no-untyped-def]
            if (batch.reshape(len(batch), -1).mean(axis=1) == 13).any():
                raise ModelFailed("thirteen")
            return super().predict(served, batch, *call)

    class OneBad(Memory):
        def read(self, path: str, locator: str) -> bytes:
            return png(13, side=8) if path.endswith("17.png") else super().read(path, locator)

    source = OneBad(50)
    with listed_journal(tmp_path, source) as journal:
        progress = run_scorer(serve(predictor=Touchy()), journal, source, per_request=50)
        assert (progress.rows, progress.failures) == (50, 1)
        assert journal.tally("error_code", FAILED) == [("model_failed", 1)]


def test_a_picture_that_the_model_answers_with_nan_fails_beside_its_neighbours(serve: Serve, tmp_path: Path) -> None:
    class Undefined(ShadePredictor):
        def predict(self, served, batch, *call):  # type: ignore[no-untyped-def]
            scores = super().predict(served, batch, *call)
            scores.probabilities[batch.reshape(len(batch), -1).mean(axis=1) == 13] = np.nan
            return scores

    class OneBad(Memory):
        def read(self, path: str, locator: str) -> bytes:
            return png(13, side=8) if path.endswith("17.png") else super().read(path, locator)

    for per_request in (50, 1):
        source = OneBad(50)
        folder = tmp_path / str(per_request)
        folder.mkdir()
        with listed_journal(folder, source) as journal:
            progress = run_scorer(serve(predictor=Undefined()), journal, source, per_request=per_request)
            assert (progress.rows, progress.failures) == (50, 1)
            assert journal.tally("error_code", FAILED) == [("model_failed", 1)]


def test_photos_travel_a_few_in_a_request(serve: Serve, tmp_path: Path) -> None:
    class Counting(ShadePredictor):
        sizes: list[int] = []  # noqa: RUF012

        def predict(self, served, batch, *call):  # type: ignore[no-untyped-def]
            self.sizes.append(len(batch))
            return super().predict(served, batch, *call)

    source = Memory(20)
    source.data = noise(450)
    assert 200_000 < len(source.data) < 220_000
    with listed_journal(tmp_path, source) as journal:
        assert run_scorer(serve(predictor=Counting()), journal, source).rows == 20
    assert Counting.sizes == [2] * 10


class Leaving(ShadePredictor):
    """Tells when it has answered twenty requests."""

    def __init__(self) -> None:
        super().__init__(seconds=0.02)
        self.has_answered = threading.Event()

    def predict(self, served, batch, *call):  # type: ignore[no-untyped-def]
        if len(self.batches) >= 20:
            self.has_answered.set()
        return super().predict(served, batch, *call)


def test_a_service_that_stays_away_stops_the_run_after_its_patience(serve: Serve, tmp_path: Path) -> None:
    predictor = Leaving()
    service = serve(predictor=predictor)
    source = Memory(400)

    def leave() -> None:
        predictor.has_answered.wait(30)
        service.stop()

    with listed_journal(tmp_path, source) as journal:
        leaving = threading.Thread(target=leave)
        leaving.start()
        with pytest.raises(ScoringStopped, match="--patience"):
            run_scorer(service, journal, source, per_request=4, patience_seconds=1.0)
        leaving.join()
        recorded = journal.done()
        assert 0 < recorded < 400
        back = serve(port=service.port)
        assert run_scorer(back, journal, source).answered == 400 - recorded


def test_a_service_that_comes_back_in_time_is_waited_for(serve: Serve, tmp_path: Path) -> None:
    predictor, missed = Leaving(), threading.Event()
    service = serve(predictor=predictor)
    source = Memory(400)

    class Noticing(Scorer):
        def _try_again(self, chunk, exc):  # type: ignore[no-untyped-def]
            missed.set()
            super()._try_again(chunk, exc)

    def leave_and_return() -> None:
        predictor.has_answered.wait(30)
        service.stop()
        missed.wait(30)
        serve(port=service.port)

    with listed_journal(tmp_path, source) as journal:
        leaving = threading.Thread(target=leave_and_return)
        leaving.start()
        assert run_scorer(service, journal, source, Noticing, per_request=4, patience_seconds=20.0).rows == 400
        leaving.join()
    assert missed.is_set()


def test_a_read_error_of_any_source_is_a_row(service: Service, tmp_path: Path) -> None:
    class Broken(Memory):
        def read(self, path: str, locator: str) -> bytes:  # noqa: ARG002
            raise unreadable(f"{path} has a \udcff in it")

    source = Broken(3)
    with listed_journal(tmp_path, source) as journal:
        assert run_scorer(service, journal, source).failures == 3
        assert [row.error_code for row in journal.rows("m", ordered=True)] == ["unreadable_file"] * 3
