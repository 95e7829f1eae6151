"""GoogLeNet (inception modules) from scratch, on a folder of pictures."""

from export.networks.classic import googlenet
from export.training.folder_commands import classic_command

command = classic_command(
    "googlenet", googlenet, "GoogLeNet (inception modules) from scratch, on a folder of pictures."
)
