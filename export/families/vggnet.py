"""VGG-16 from scratch, on a folder of pictures."""

from export.classic import vggnet
from export.folder_training import classic_command

command = classic_command("vggnet", vggnet, "VGG-16 from scratch, on a folder of pictures.")
