import io
import subprocess
import sys

import numpy as np
import pytest
from sightline import BadImage
from sightline.pictures import to_upload


def test_what_is_no_picture_is_said_before_anything_is_sent() -> None:
    with pytest.raises(TypeError, match="a picture is a path"):
        to_upload(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="text mode"):
        to_upload(io.StringIO("x"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"float64 \(2, 2\)"):
        to_upload(np.zeros((2, 2)))  # type: ignore[arg-type]
    with pytest.raises(BadImage, match=r"nowhere\.png") as missing:
        to_upload("nowhere.png")
    assert missing.value.code == "unreadable_file"
    with pytest.raises(BadImage, match="null"):
        to_upload("a\0b")


@pytest.mark.integration
def test_an_array_without_pillow_names_the_package() -> None:
    code = (
        "import sys; sys.modules['PIL'] = None\n"  # as where it is not installed
        "import numpy, sightline, sightline.pictures\n"
        "try:\n"
        "    sightline.pictures.to_upload(numpy.zeros((2, 2), 'uint8'))\n"
        "except sightline.MissingPackage as exc:\n"
        "    print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs the package Pillow. Install it: pip install pillow." in done.stdout
