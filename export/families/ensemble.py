"""Combine several exported models into one: one request, one answer.

The graphs of the members are copied into one SavedModel. A member with another input size gets it by a resize in the
graph that samples as Pillow does (bilinear, antialiased).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from export.options import Target, publishing_options
from export.pipeline import Recipe, export
from export.trained_model import Servable, TrainedModel
from serving.contract.card import CARD_FILE, ModelCard, Source, read_card
from serving.contract.errors import UsageError
from serving.contract.golden import read_golden
from serving.contract.image import decode_image
from serving.contract.image_limits import ImageLimits
from serving.contract.preprocessing import Preprocessing
from serving.contract.versions import version_dirs

VOTES = ("soft", "hard")
# Rec. 601 luma in sixteenths of 4096, as Pillow's convert("L") computes it
LUMA, LUMA_SHIFT = (19595, 38470, 7471), 65536


@dataclass(frozen=True, slots=True)
class Member:
    """One exported version. loaded: its SavedModel."""

    version: Path
    card: ModelCard
    loaded: Any

    def probabilities(self, image: Any) -> Any:
        """Run the member. image: uint8 (n, h, w, c) of the member's size. Returns float32 (n, k)."""
        signature = self.loaded.signatures[self.card.input.signature]
        return signature(**{self.card.input.tensor: image})[self.card.output.tensor]


@click.command("ensemble")
@click.argument("members", nargs=-1, required=True)
@click.option("--vote", type=click.Choice(VOTES), default=VOTES[0], show_default=True)
@publishing_options
def command(*, members: Sequence[str], target: Target, vote: str) -> None:
    """Several exported models as one. MEMBERS are names in --out, names with a version (digits/2), or directories.

    soft averages the probabilities; hard counts votes and breaks ties by the average.

    \b
    sightline export digits --name a --seed 1
    sightline export digits --name b --seed 2 --arch lenet
    sightline export ensemble a b --name digits
    """
    versions = [find_member(member, target.models) for member in members]
    export(Recipe("ensemble", partial(combine, versions, vote)), target)


def find_member(member: str, models: Path) -> Path:
    """Find the directory of a member. Raises UsageError where there is none."""
    for path in (models / member, Path(member)):
        if (path / CARD_FILE).is_file():
            return path
        if versions := version_dirs(path):
            return versions[-1]
    raise UsageError(f"{member} is not an exported model.", hint=f"Name one of {models}, such as digits or digits/2.")


def combine(versions: Sequence[Path], vote: str) -> TrainedModel:
    """Load the members and combine them. Raises UsageError for members whose inputs or classes differ."""
    import tensorflow as tf

    if len(versions) < 2:
        raise UsageError("An ensemble needs two members.", hint="Name two or more exported models.")
    cards = [read_card(version) for version in versions]
    preprocessing = common_preprocessing(cards)
    members = [Member(v, c, tf.saved_model.load(str(v))) for v, c in zip(versions, cards, strict=True)]
    largest = max(cards, key=lambda card: card.preprocessing.height)
    golden = read_golden(versions[cards.index(largest)])
    names = ", ".join(f"{card.name} ({card.family})" for card in cards)
    return TrainedModel(
        servable=Servable(
            call=partial(vote_of, VOTERS[vote], members),
            kept=tuple(member.loaded for member in members),
            parameters=sum(card.training.parameters for card in cards),
            summary=f"{vote} vote of {names}",
        ),
        preprocessing=preprocessing,
        labels=cards[0].labels,
        source=Source("weights", names, _digest(versions)),
        examples=tuple(decode_image(picture, ImageLimits()) for picture in golden.pictures),
    )


def common_preprocessing(cards: Sequence[ModelCard]) -> Preprocessing:
    """Find one preprocessing for all members: the size of the largest, in colour if any of them needs colour.

    Raises UsageError unless labels, fit, polarity and cropped share are the same.
    """
    first = cards[0]
    for card in cards[1:]:
        if card.label_names != first.label_names:
            raise UsageError(
                f"{first.name} and {card.name} have different labels.", hint="Members must have the same classes."
            )
        if _framing(card.preprocessing) != _framing(first.preprocessing):
            raise UsageError(
                f"{first.name} frames images by {_framing(first.preprocessing)}, {card.name} by "
                f"{_framing(card.preprocessing)}: one tensor cannot serve both.",
                hint="Export the members with the same fit, polarity and shape.",
            )
    for card in cards:
        if card.preprocessing.dtype != "uint8":
            raise UsageError(
                f"{card.name} takes float32; only models with their scaling in the graph can be members.",
                hint="Export it without --as-is.",
            )
    largest = max((card.preprocessing for card in cards), key=lambda p: p.height)
    if all(card.preprocessing.color == largest.color for card in cards):
        return largest
    return replace(largest, color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)


def vote_of(rule: Callable[[Any], Any], members: Sequence[Member], image: Any) -> Any:
    """Run all members and combine their answers by `rule`: probabilities (n, k). image: uint8 (n, h, w, c)."""
    import tensorflow as tf

    answers = [member.probabilities(fit_to_member(image, member.card.preprocessing)) for member in members]
    return rule(tf.stack(answers))


def fit_to_member(image: Any, wanted: Preprocessing) -> Any:
    """Convert to a member's size and colours, rounded to uint8 as Pillow rounds. image: uint8 (n, h, w, c)."""
    import tensorflow as tf

    if wanted.color == "gray" and image.shape[-1] == 3:
        weighed = tf.cast(image, tf.int32) * tf.constant(LUMA, tf.int32)
        total = tf.reduce_sum(weighed, axis=-1, keepdims=True) + LUMA_SHIFT // 2
        image = tf.cast(total // LUMA_SHIFT, tf.uint8)
    if image.shape[1:3] != (wanted.height, wanted.width):
        resized = tf.image.resize(tf.cast(image, tf.float32), (wanted.height, wanted.width), antialias=True)
        image = tf.cast(tf.clip_by_value(tf.floor(resized + 0.5), 0, 255), tf.uint8)
    return image


def soft(answers: Any) -> Any:
    """Average the probabilities. answers: (members, n, k)."""
    import tensorflow as tf

    return tf.reduce_mean(answers, axis=0)


def hard(answers: Any) -> Any:
    """Count votes as shares; the mean probability, worth less than a vote, breaks ties. answers: (members, n, k)."""
    import tensorflow as tf

    members, classes = answers.shape[0], answers.shape[-1]
    votes = tf.reduce_sum(tf.one_hot(tf.argmax(answers, axis=-1), classes), axis=0)
    tie_break = soft(answers) / (members + 1)
    return (votes + tie_break) / (members + 1 / (members + 1))


VOTERS: dict[str, Callable[[Any], Any]] = {"soft": soft, "hard": hard}


def _framing(p: Preprocessing) -> tuple[object, ...]:
    """The way an image is cut, whatever its size. It must be equal for one tensor to serve two models."""
    shape = round(p.width / p.height, 3)
    return (p.fit, p.polarity, shape, round(p.resize_short_side / p.height, 2) if p.resize_short_side else None)


def _digest(versions: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for version in versions:
        digest.update((version / CARD_FILE).read_bytes())
        digest.update(np.ascontiguousarray(read_golden(version).probabilities).tobytes())
    return digest.hexdigest()
