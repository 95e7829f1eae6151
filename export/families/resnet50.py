"""ResNet-50 (identity and convolution blocks) from scratch, on a folder of pictures."""

from export.classic import resnet50
from export.folder_training import classic_command

command = classic_command(
    "resnet50", resnet50, "ResNet-50 (identity and convolution blocks) from scratch, on a folder of pictures."
)
