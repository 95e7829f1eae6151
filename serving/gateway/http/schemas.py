"""The JSON of requests and answers: `responses` and its neighbours build it, the specification describes it."""

from typing import (
    Any,
    Literal,
    NotRequired,  # pydantic wants this one before Python 3.12
)

from typing_extensions import TypedDict

from serving.contract.card import ModelCard


class Top(TypedDict):
    """One class. id: only where the model's ids are more than row numbers and names."""

    label: str
    id: NotRequired[str]
    index: int
    score: float


class PictureError(TypedDict):
    code: str
    detail: str
    hint: str


class Predicted(TypedDict):
    """The prediction for one image."""

    name: str
    label: str | None
    id: NotRequired[str | None]
    reason: NotRequired[Literal["uncertain"]]
    score: float
    raw_score: NotRequired[float]
    top: list[Top]
    probabilities: NotRequired[list[float]]
    input: NotRequired[str]


class Refused(TypedDict):
    """An image that cannot be used, beside others that can."""

    name: str
    error: PictureError


class Predictions(TypedDict):
    model: str
    version: int
    predictions: list[Predicted | Refused]
    request_id: str


class Base64Picture(TypedDict):
    b64: str
    name: NotRequired[str]


class Base64Pictures(TypedDict):
    images: list[Base64Picture | str]


class Version(TypedDict):
    """error: of the last attempt to load it. proven: its files are those that were exported, and it repeats the
    export's answers on this machine; null where that is not known. unproven: the reason that it is not proven.
    """

    version: int
    state: str
    error: NotRequired[str]
    proven: bool | None
    unproven: NotRequired[str]


class Model(TypedDict):
    """classifies: POST /predict/{model} answers; null where that is not known."""

    name: str
    ready: bool
    classifies: bool | None
    versions: list[Version]


class Models(TypedDict):
    models: list[Model]


class Description(Model):
    version: int | None
    card: ModelCard | None


class Health(TypedDict):
    status: Literal["ok"]


class Export(TypedDict):
    """An export that runs beside the service, waits, or has failed. progress: 0-1; null where it is not known."""

    model: str
    state: Literal["waiting", "running", "failed"]
    detail: str
    progress: float | None


class BackendAddresses(TypedDict):
    addresses: list[str]


class FailedVersion(TypedDict):
    model: str
    version: int
    error: str


class Ready(TypedDict):
    """exports: only where models are being exported beside the service."""

    status: Literal["ready"]
    models: list[str]
    failed: list[FailedVersion]
    exports: NotRequired[list[Export]]


class Problem(TypedDict):
    """RFC 9457, extended by `code`, `error` (the same as `detail`), `hint` and `request_id`."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    error: str
    hint: str
    request_id: str


class Box(TypedDict):
    top: int
    right: int
    bottom: int
    left: int


class Candidate(TypedDict):
    name: str
    distance: float


class Reason(TypedDict):
    code: str
    text: str
    measured: float | None
    limit: float | None


class FaceQuality(TypedDict):
    side: int
    sharpness: float
    brightness: float
    turn: float


class Face(TypedDict):
    box: Box
    name: str | None
    distance: float | None
    candidates: list[Candidate]
    confidence: float
    quality: FaceQuality
    reasons: list[Reason]


class Identified(TypedDict):
    faces: list[Face]
    gallery: str
    tolerance: float
    known: int
    width: int
    height: int
    tried: list[str]
    request_id: str


class ComparedPhoto(TypedDict):
    box: Box
    faces: int
    width: int
    height: int
    tried: list[str]


class Compared(TypedDict):
    same: bool
    distance: float
    tolerance: float
    a: ComparedPhoto
    b: ComparedPhoto
    request_id: str


class SeenFace(TypedDict):
    box: Box
    confidence: float
    quality: FaceQuality


class Photo(TypedDict):
    """The outcome of one photo."""

    name: str
    accepted: bool
    stored: bool
    reasons: list[Reason]
    faces: list[SeenFace]
    tried: list[str]


class RefusedPhoto(TypedDict):
    name: str
    accepted: Literal[False]
    error: PictureError


class Enrolled(TypedDict):
    person: str
    gallery: str
    photos: list[Photo | RefusedPhoto]
    request_id: str


class EnrolProblem(Problem):
    """Every photo was refused: the problem of the first, and the outcome of each."""

    photos: NotRequired[list[Photo | RefusedPhoto]]


class Person(TypedDict):
    name: str
    encodings: int
    expires: str | None


class NamedPerson(Person):
    gallery: str


class People(TypedDict):
    gallery: str
    people: list[Person]
    known: int


class Forgotten(TypedDict):
    gallery: str
    person: str
    forgotten: int


class Gallery(TypedDict):
    name: str
    encoder: str
    people: int
    encodings: int


class Galleries(TypedDict):
    galleries: list[Gallery]


class Server(TypedDict):
    name: str
    version: str
    extensions: list[str]


class Live(TypedDict):
    live: bool


class ServerReady(TypedDict):
    ready: bool


class ModelReady(TypedDict):
    name: str
    ready: bool


class ModelNames(TypedDict):
    models: list[str]


class IndexEntry(TypedDict):
    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class TensorDescription(TypedDict):
    name: str
    datatype: str
    shape: list[int]


class Metadata(TypedDict):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorDescription]
    outputs: list[TensorDescription]


class InferTensor(TypedDict):
    name: str
    datatype: str
    shape: list[int]
    data: NotRequired[list[Any]]
    parameters: NotRequired[dict[str, Any]]


class RequestedOutput(TypedDict):
    name: str
    parameters: NotRequired[dict[str, Any]]


class InferRequest(TypedDict):
    id: NotRequired[str]
    inputs: list[InferTensor]
    outputs: NotRequired[list[RequestedOutput]]
    parameters: NotRequired[dict[str, Any]]


class InferAnswer(TypedDict):
    model_name: str
    model_version: str
    id: NotRequired[str]
    outputs: list[InferTensor]


class ServingStatus(TypedDict):
    error_code: str
    error_message: str


class ServingVersion(TypedDict):
    version: str
    state: str
    status: ServingStatus


class ServingVersions(TypedDict):
    model_version_status: list[ServingVersion]


class ServingMetadata(TypedDict):
    model_spec: dict[str, str]
    metadata: dict[str, Any]


class ServingRows(TypedDict):
    """Row form: one entry per image."""

    signature_name: NotRequired[str]
    instances: list[Any]


class ServingColumns(TypedDict):
    """Column form: a tensor, or an object of tensors by name."""

    signature_name: NotRequired[str]
    inputs: list[Any] | dict[str, Any]


class ServingPredictions(TypedDict):
    predictions: list[Any]


class ServingOutputs(TypedDict):
    outputs: Any


class ServingExamples(TypedDict):
    signature_name: NotRequired[str]
    context: NotRequired[dict[str, Any]]
    examples: list[dict[str, Any]]


class ServingResults(TypedDict):
    results: list[Any]


class ServingError(TypedDict):
    error: str
