"""GoogLeNet (inception modules) from scratch, on a folder of pictures."""

from export.classic import googlenet
from export.folder_training import classic_command

command = classic_command(
    "googlenet", googlenet, "GoogLeNet (inception modules) from scratch, on a folder of pictures."
)
