"""The errors that Sightline raises on purpose.

    SightlineError
    ├── BadRequest                 the request cannot be understood
    │   ├── EmptyBody
    │   ├── MissingImage
    │   ├── InvalidMultipart
    │   ├── InvalidJson
    │   ├── InvalidParameter
    │   ├── RequestTooLarge
    │   ├── TooManyImages
    │   ├── UnsupportedContentType
    │   │   └── UnsupportedContentEncoding
    │   ├── UploadTooSlow
    │   └── InvalidName
    ├── BadImage                   the bytes are not a picture that can be used
    │   ├── EmptyImage
    │   ├── InvalidBase64
    │   ├── NotAnImage
    │   ├── TruncatedImage
    │   ├── ImageTooLarge
    │   ├── TooManyPixels
    │   ├── CostlyImage            it would take too long to decode for its size
    │   └── UnknownPixelRange      its numbers do not say what is black and what is white
    ├── UnusableFace               the picture decodes, its faces cannot be used
    │   ├── NoFace
    │   ├── TooManyFaces
    │   └── FaceRefused
    ├── Conflict                   what is there already does not agree with what came
    │   └── EncoderMismatch
    ├── NotFound
    │   ├── UnknownRoute
    │   ├── UnknownModel
    │   ├── NotAClassifier
    │   ├── UnknownVersion
    │   ├── UnknownPerson
    │   └── UnknownGallery
    ├── MethodNotAllowed
    ├── Unauthenticated            no API key, or one that is not known
    ├── Forbidden                  the API key may not do this
    ├── Unavailable                try again later
    │   ├── ModelServerUnavailable
    │   ├── ModelNotReady
    │   ├── Overloaded
    │   ├── Stopping
    │   ├── RateLimited
    │   ├── FacesUnavailable
    │   ├── FaceProcessDied
    │   ├── GalleryBusy
    │   └── GalleryUnavailable
    ├── DeadlineExceeded
    ├── ModelError                 the model or its card is wrong
    │   ├── InvalidCard
    │   └── ModelFailed
    ├── GalleryError               the known set cannot be read or written
    │   ├── GalleryCorrupt
    │   ├── GalleryFull
    │   └── GalleryKeyMissing
    └── OperatorError              the person at the terminal has to do something
        ├── UsageError
        ├── PortTaken
        ├── DataNotFound
        ├── InvalidData            the data set is there, and cannot be trained on
        ├── NoSpace
        ├── ProcessDied
        ├── FacesNotInstalled
        ├── VerificationFailed
        └── UnreadableFile

An error knows nothing of HTTP or gRPC: `gateway/http/errors.py` holds the table of HTTP statuses and
`backend/grpc_predictor.py` that of gRPC's.
"""

from typing import ClassVar


class SightlineError(Exception):
    """An error in words for the person who can mend it.

    detail: what was given and what was expected. hint: what to do about it, or "" where nothing is known. `str` gives
    both, as sentences.
    `code` is the machine-readable name and never changes; `title` is its short text.
    exit_status: of a command that ends with it; 1: some or all of it failed, 2: it was not usable as given.
    """

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Error"
    exit_status: ClassVar[int] = 1

    def __init__(self, detail: str, *, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        if not self.hint:
            return self.detail
        stop = "" if self.detail.endswith((".", "!", "?", ":")) else "."
        return f"{self.detail}{stop} {self.hint}"


class BadRequest(SightlineError):
    code, title = "bad_request", "The request cannot be understood"


class EmptyBody(BadRequest):
    code, title = "empty_body", "The request has no body"


class MissingImage(BadRequest):
    code, title = "missing_image", "The request holds no picture"


class InvalidMultipart(BadRequest):
    code, title = "invalid_multipart", "The form cannot be read"


class InvalidJson(BadRequest):
    code, title = "invalid_json", "The JSON cannot be read"


class InvalidParameter(BadRequest):
    code, title = "invalid_parameter", "A parameter has a value that is not allowed"


class RequestTooLarge(BadRequest):
    code, title = "request_too_large", "The request is too large"


class TooManyImages(BadRequest):
    code, title = "too_many_images", "The request holds too many pictures"


class UnsupportedContentType(BadRequest):
    code, title = "unsupported_content_type", "The content type is not supported"


class UnsupportedContentEncoding(UnsupportedContentType):
    code, title = "unsupported_content_encoding", "The compression of the body is not supported"


class UploadTooSlow(BadRequest):
    code, title = "upload_too_slow", "The request did not arrive in time"


class InvalidName(BadRequest):
    code, title = "invalid_name", "The name cannot be used"


class BadImage(SightlineError):
    code, title = "bad_image", "The picture cannot be used"


class EmptyImage(BadImage):
    code, title = "empty_image", "The picture has no bytes"


class InvalidBase64(BadImage):
    code, title = "invalid_base64", "The base64 cannot be read"


class NotAnImage(BadImage):
    code, title = "not_an_image", "The bytes are not a picture"


class TruncatedImage(BadImage):
    code, title = "truncated_image", "The picture is cut off or damaged"


class ImageTooLarge(BadImage):
    code, title = "image_too_large", "The picture has too many bytes"


class TooManyPixels(BadImage):
    code, title = "too_many_pixels", "The picture has too many pixels"


class CostlyImage(BadImage):
    code, title = "costly_image", "The picture would take too long to decode"


class UnknownPixelRange(BadImage):
    code, title = "unknown_pixel_range", "The picture's pixels have no known range"


class UnusableFace(SightlineError):
    code, title = "unusable_face", "The faces in the picture cannot be used"


class NoFace(UnusableFace):
    code, title = "no_face", "There is no face in the picture"


class TooManyFaces(UnusableFace):
    code, title = "too_many_faces", "There are several faces where one is wanted"


class FaceRefused(UnusableFace):
    code, title = "face_refused", "The photo is not good enough to know the person by"


class Conflict(SightlineError):
    code, title = "conflict", "The request does not agree with what is there"


class EncoderMismatch(Conflict):
    code, title = "encoder_mismatch", "The gallery was made with another face encoder"


class NotFound(SightlineError):
    code, title = "not_found", "Not found"


class UnknownRoute(NotFound):
    code, title = "unknown_route", "There is nothing at this address"


class UnknownModel(NotFound):
    code, title = "unknown_model", "There is no such model"


class NotAClassifier(NotFound):
    code, title = "not_a_classifier", "The model does not classify pictures"


class UnknownVersion(NotFound):
    code, title = "unknown_version", "The model has no such version"


class UnknownPerson(NotFound):
    code, title = "unknown_person", "There is no such person in the gallery"


class UnknownGallery(NotFound):
    code, title = "unknown_gallery", "There is no such gallery"


class MethodNotAllowed(SightlineError):
    code, title = "method_not_allowed", "The method is not allowed here"


class Unauthenticated(SightlineError):
    code, title = "unauthenticated", "An API key is needed"


class Forbidden(SightlineError):
    code, title = "forbidden", "The API key may not do this"


class Unavailable(SightlineError):
    """Nothing is wrong with the request: it may succeed later."""

    code, title = "unavailable", "Not available right now"
    retry_after_seconds: int = 1


class ModelServerUnavailable(Unavailable):
    code, title = "model_server_unavailable", "The model server cannot be reached"


class ModelNotReady(Unavailable):
    code, title = "model_not_ready", "The model is not ready"


class Overloaded(Unavailable):
    code, title = "overloaded", "The server is at its limit"


class Stopping(Unavailable):
    code, title = "stopping", "The service is about to stop"


class RateLimited(Unavailable):
    """This client has asked too often. retry_after_seconds: when it may ask again."""

    code, title = "rate_limited", "Too many requests"

    def __init__(self, detail: str, *, hint: str = "", retry_after_seconds: int = 1) -> None:
        super().__init__(detail, hint=hint or "Ask less often, or wait as long as Retry-After says.")
        self.retry_after_seconds = retry_after_seconds


class FacesUnavailable(Unavailable):
    code, title = "faces_unavailable", "The face service cannot be reached"


class FaceProcessDied(Unavailable):
    code, title = "face_process_died", "A face process ended during the work"


class GalleryBusy(Unavailable):
    code, title = "gallery_busy", "The gallery is locked by somebody else"


class GalleryUnavailable(Unavailable):
    code, title = "gallery_unavailable", "The gallery's database cannot be reached"


class DeadlineExceeded(SightlineError):
    code, title = "deadline_exceeded", "The answer took too long"


class ModelError(SightlineError):
    code, title = "model_error", "The model cannot be served"


class InvalidCard(ModelError):
    code, title = "invalid_card", "The model's card cannot be used"


class ModelFailed(ModelError):
    code, title = "model_failed", "The model failed"


class GalleryError(SightlineError):
    code, title = "gallery_error", "The gallery cannot be used"


class GalleryCorrupt(GalleryError):
    code, title = "gallery_corrupt", "The gallery's file is damaged"


class GalleryFull(GalleryError):
    code, title = "gallery_full", "There is no room left for the gallery"


class GalleryKeyMissing(GalleryError):
    code, title = "gallery_key_missing", "The gallery is encrypted and the key does not open it"


class OperatorError(SightlineError):
    code, title = "operator_error", "Something has to be set right first"
    exit_status = 2


class UsageError(OperatorError):
    code, title = "usage", "The command cannot be carried out as given"


class PortTaken(OperatorError):
    code, title = "port_taken", "The port is taken"


class DataNotFound(OperatorError):
    code, title = "data_not_found", "The data set was not found"


class InvalidData(OperatorError):
    code, title = "invalid_data", "The data set cannot be used"


class NoSpace(OperatorError):
    code, title = "no_space", "There is no space left on the disk"


class ProcessDied(OperatorError):
    code, title = "process_died", "A process ended that should run"


class FacesNotInstalled(OperatorError):
    code, title = "faces_not_installed", "The face libraries cannot be used"


class VerificationFailed(OperatorError):
    code, title = "verification_failed", "The exported model does not answer as the trained one"


class UnreadableFile(OperatorError):
    code, title = "unreadable_file", "A file cannot be read"
