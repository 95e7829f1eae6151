"""The predictor against a real gRPC server whose answers one can compute by hand."""

import time
from collections.abc import Iterator
from dataclasses import replace

import grpc
import numpy as np
import pytest

from serving.backend.backends import Backends
from serving.backend.grpc_predictor import GrpcPredictor
from serving.backend.predictor import Call, ModelRef, VersionChanged, VersionState, readiness_of
from serving.contract.errors import (
    DeadlineExceeded,
    ModelFailed,
    ModelNotReady,
    ModelServerUnavailable,
    NotAClassifier,
    Overloaded,
    SightlineError,
    UnknownModel,
    UnknownVersion,
)
from tests.backend.color_server import RED, ColorServer, State, serving
from tests.cards import COLORS


@pytest.fixture
def served() -> Iterator[tuple[ColorServer, str]]:
    colors = ColorServer()
    with serving(colors) as target:
        yield colors, target


@pytest.fixture
def colors(served: tuple[ColorServer, str]) -> ColorServer:
    return served[0]


@pytest.fixture
def predictor(served: tuple[ColorServer, str]) -> Iterator[GrpcPredictor]:
    backends = Backends([served[1]])
    yield GrpcPredictor(backends, timeout_seconds=5, listed_models=["named"])
    backends.close()


def test_a_batch_is_answered_with_a_row_for_each_picture(predictor: GrpcPredictor) -> None:
    model = predictor.describe(ModelRef("colors"))
    scores = predictor.predict(model, np.concatenate([RED, RED[..., ::-1]]))
    assert (model.version, model.card) == (1, COLORS)
    assert scores.version == 1
    assert scores.probabilities.tolist() == [[1, 0, 0], [0, 0, 1]]


def test_the_card_is_read_once_for_many_requests(predictor: GrpcPredictor, colors: ColorServer) -> None:
    for _ in range(5):
        predictor.predict(predictor.describe(ModelRef("colors")), RED)
    assert colors.calls.count("model_card") == 1


def test_another_version_is_noticed_by_the_answer_it_gives(predictor: GrpcPredictor, colors: ColorServer) -> None:
    model = predictor.describe(ModelRef("colors"))
    colors.versions[2] = replace(COLORS, name="newer")
    with pytest.raises(VersionChanged):
        predictor.predict(model, RED)
    fresh = predictor.describe(ModelRef("colors"))
    assert (fresh.version, fresh.card.name) == (2, "newer")
    assert predictor.predict(fresh, RED).version == 2


def test_another_version_of_another_size_is_noticed_by_its_refusal(
    predictor: GrpcPredictor, colors: ColorServer
) -> None:
    model = predictor.describe(ModelRef("colors"))
    colors.versions[2] = replace(COLORS, input=replace(COLORS.input, shape=(None, 4, 4, 3)))
    with pytest.raises(VersionChanged):
        predictor.predict(model, RED)


def test_an_asked_for_version_stays(predictor: GrpcPredictor, colors: ColorServer) -> None:
    colors.versions[2] = COLORS
    model = predictor.describe(ModelRef("colors", version=1))
    assert predictor.predict(model, RED).version == 1


def test_an_unknown_model_names_the_known_ones(predictor: GrpcPredictor) -> None:
    with pytest.raises(UnknownModel, match=r"no model 'dogs'.*colors"):
        predictor.describe(ModelRef("dogs"))


@pytest.mark.parametrize("lists", [True, False])
def test_models_that_are_not_ready_or_do_not_classify_are_not_offered(colors: ColorServer, lists: bool) -> None:
    colors.lists, colors.others = lists, {"face-encoder": State.AVAILABLE, "loading": State.LOADING}
    with serving(colors) as target:
        backends = Backends([target])
        predictor = GrpcPredictor(backends, listed_models=["loading", "face-encoder", "colors"])
        with pytest.raises(UnknownModel) as caught:
            predictor.describe(ModelRef("dogs"))
        assert caught.value.hint == "Models that are served: colors."
        backends.close()


def test_a_model_whose_versions_are_all_gone_is_unknown(predictor: GrpcPredictor, colors: ColorServer) -> None:
    colors.versions, colors.gone = {}, (2, 1)
    with pytest.raises(UnknownModel, match=r"no model 'colors'.*No model is served yet"):
        predictor.describe(ModelRef("colors"))
    with pytest.raises(UnknownModel):
        predictor.versions("colors")
    assert predictor.models() == {"colors": []}


def test_a_version_that_is_gone_is_unknown_while_another_one_loads(
    predictor: GrpcPredictor, colors: ColorServer
) -> None:
    colors.versions, colors.gone, colors.loading = {}, (1,), (2,)
    with pytest.raises(UnknownVersion, match=r"no version 1.*No version is ready yet"):
        predictor.describe(ModelRef("colors", version=1))
    with pytest.raises(ModelNotReady, match="loading"):
        predictor.describe(ModelRef("colors"))


def test_a_version_that_could_not_be_loaded_says_why_also_while_it_is_tried_again(
    predictor: GrpcPredictor, colors: ColorServer
) -> None:
    for state in (State.LOADING, State.END):
        colors.versions, colors.failed = {}, {1: (state, "other weights")}
        with pytest.raises(ModelNotReady, match="not ready: other weights"):
            predictor.describe(ModelRef("colors"))


def test_what_is_known_of_a_version_stands_beside_it(predictor: GrpcPredictor, colors: ColorServer) -> None:
    colors.versions, colors.unproven, colors.loading = {1: COLORS, 2: COLORS}, {1: "no manifest"}, (3,)
    found = [(row.version, row.unproven, row.classifies) for row in predictor.versions("colors")]
    assert found == [(3, None, None), (2, "", True), (1, "no manifest", True)]
    assert predictor.models()["colors"] == predictor.versions("colors")
    colors.lists = False  # TensorFlow Serving
    assert {(row.unproven, row.classifies) for row in predictor.versions("colors")} == {(None, None)}


def test_an_unknown_version_names_the_known_ones(predictor: GrpcPredictor) -> None:
    with pytest.raises(UnknownVersion, match=r"no version 7.*ready: 1"):
        predictor.describe(ModelRef("colors", version=7))


def test_an_unknown_label_is_an_unknown_version(predictor: GrpcPredictor) -> None:
    with pytest.raises(UnknownVersion, match="no label 'canary'"):
        predictor.describe(ModelRef("colors", label="canary"))


def test_a_model_that_is_loading_is_not_ready(predictor: GrpcPredictor, colors: ColorServer) -> None:
    colors.versions.clear()
    colors.loading = (1,)
    with pytest.raises(ModelNotReady, match="loading"):
        predictor.describe(ModelRef("colors"))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, ModelServerUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
        (grpc.StatusCode.INTERNAL, ModelFailed),
        (grpc.StatusCode.UNKNOWN, ModelFailed),
    ],
)
def test_the_servers_status_becomes_our_error(
    predictor: GrpcPredictor, colors: ColorServer, code: grpc.StatusCode, kind: type[SightlineError]
) -> None:
    model = predictor.describe(ModelRef("colors"))
    colors.fails = code
    with pytest.raises(kind, match="as told"):
        predictor.predict(model, RED)


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK], ids=lambda code: code.name
)
def test_every_status_of_grpc_becomes_an_error_of_ours(
    predictor: GrpcPredictor, colors: ColorServer, code: grpc.StatusCode
) -> None:
    colors.fails = code
    with pytest.raises(SightlineError):
        predictor.describe(ModelRef("colors"))


def test_a_model_without_a_card_is_told_so(predictor: GrpcPredictor, colors: ColorServer) -> None:
    colors.fails = grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(NotAClassifier, match="has no card"):
        predictor.describe(ModelRef("colors"))


def test_an_answer_that_does_not_fit_the_card_is_refused(predictor: GrpcPredictor, colors: ColorServer) -> None:
    colors.versions[1] = replace(COLORS, labels=COLORS.labels[:2])
    model = predictor.describe(ModelRef("colors"))
    with pytest.raises(ModelFailed, match=r"\(1, 3\); its card promises \(1, 2\)"):
        predictor.predict(model, RED)


def test_models_are_listed_by_the_server_or_by_the_settings(predictor: GrpcPredictor, colors: ColorServer) -> None:
    assert list(predictor.models()) == ["colors"]
    colors.lists = False
    assert predictor.models() == {"named": []}


def test_versions_come_newest_first(predictor: GrpcPredictor, colors: ColorServer) -> None:
    colors.versions = {1: COLORS, 3: COLORS}
    colors.loading = (2,)
    assert [(row.version, row.state) for row in predictor.versions("colors")] == [
        (3, "AVAILABLE"),
        (2, "LOADING"),
        (1, "AVAILABLE"),
    ]


def test_a_server_that_is_away_is_unavailable_at_once() -> None:
    backends = Backends(["127.0.0.1:1"])
    predictor = GrpcPredictor(backends, timeout_seconds=5)
    with pytest.raises(ModelServerUnavailable, match=r"127.0.0.1:1"):
        predictor.describe(ModelRef("colors"))
    backends.close()


def test_a_trace_travels_as_metadata(predictor: GrpcPredictor, colors: ColorServer) -> None:
    call = Call(None, (("traceparent", "00-1-2-01"),))
    predictor.predict(predictor.describe(ModelRef("colors")), RED, call)
    assert ("traceparent", "00-1-2-01") in colors.metadata


def test_a_call_whose_time_has_run_out_is_late(predictor: GrpcPredictor) -> None:
    model = predictor.describe(ModelRef("colors"))
    with pytest.raises(DeadlineExceeded):
        predictor.predict(model, RED, Call(time.monotonic()))


def states(**models: str) -> dict[str, list[VersionState]]:
    return {name: [VersionState(1, state, "it broke" if state == "END" else "")] for name, state in models.items()}


def test_readiness_is_judged_by_the_states_where_the_server_does_not_tell() -> None:
    judged = readiness_of({**states(a="AVAILABLE", b="LOADING", c="END", d="START"), "e": []})
    assert judged.available == ("a",)
    assert judged.loading == (ModelRef("b", 1), ModelRef("d", 1), ModelRef("e"))
    assert judged.failed == ((ModelRef("c", 1), "it broke"),)
    newer = [VersionState(2, "LOADING", ""), VersionState(1, "AVAILABLE", "")]
    assert not readiness_of({"a": newer}).loading  # a swap does not make the service unready
