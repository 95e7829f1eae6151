"""VGG-16, GoogLeNet or ResNet-50, trained from scratch on your own images."""

from functools import partial

import click

from export.data.augmentation import PHOTO_AUGMENTATION
from export.data.uint8_input import uint8_preprocessing
from export.networks import classic
from export.options import FolderOptions, Target, TrainingOptions, arch_option, folder_options, training_options
from export.pipeline import Recipe, export
from export.training.train import train

ARCHITECTURES = {"resnet50": classic.resnet50, "googlenet": classic.googlenet, "vggnet": classic.vggnet}


@click.command("from-scratch")
@arch_option(ARCHITECTURES)
@click.option("--image-size", type=click.IntRange(32, 1024), default=128, show_default=True, help="Pixels of a side.")
@folder_options
@training_options
def command(*, training: TrainingOptions, target: Target, folder: FolderOptions, arch: str, image_size: int) -> None:
    """VGG-16, GoogLeNet or ResNet-50 on your own images.

    Trains from scratch: `transfer` needs fewer images and less time.

    \b
    sightline export from-scratch --data ~/photos --arch resnet50 --name flowers
    """
    plan = training.plan(
        target, PHOTO_AUGMENTATION, epochs=40, batch_size=32, learning_rate=1e-3, patience=10, schedule="plateau"
    )
    load = partial(folder.load, training, uint8_preprocessing("rgb", (image_size, image_size), "crop"))
    export(Recipe(arch, partial(train, load, ARCHITECTURES[arch], plan)), target)


def _alias(arch: str) -> click.Command:
    """`sightline export resnet50`: the same command with --arch set, under the name that it had before."""
    assert command.callback is not None
    return click.Command(
        arch,
        callback=partial(command.callback, arch=arch),
        params=[option for option in command.params if option.name != "arch"],
        help=f"`from-scratch --arch {arch}`.\n\n\b\nsightline export {arch} --data ~/photos --name flowers",
    )


aliases = {arch: _alias(arch) for arch in ARCHITECTURES}
