"""ResNet-50 (identity and convolution blocks) from scratch, on a folder of pictures."""

from export.networks.classic import resnet50
from export.training.folder_commands import classic_command

command = classic_command(
    "resnet50", resnet50, "ResNet-50 (identity and convolution blocks) from scratch, on a folder of pictures."
)
