"""VGG-16 from scratch, on a folder of pictures."""

from export.networks.classic import vggnet
from export.training.folder_commands import classic_command

command = classic_command("vggnet", vggnet, "VGG-16 from scratch, on a folder of pictures.")
