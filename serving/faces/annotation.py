"""Draw the faces of a photo: a frame, a name and a distance each."""

import io

from PIL import Image, ImageDraw, ImageFont

from serving.contract.image import decode_image
from serving.contract.image_limits import ImageLimits
from serving.faces.recognition import Identification

KNOWN, UNKNOWN = (46, 160, 67), (207, 34, 46)  # green, red
LINE = 1 / 300  # of the long side
TEXT = 1 / 40  # of the long side


def annotate(photo: bytes, identified: Identification, limits: ImageLimits) -> bytes:
    """Draw a frame round each face of a photo file, with the name and the distance below it.

    Returns a PNG file of the upright photo. Raises what `decode_image` raises.
    """
    image = Image.fromarray(decode_image(photo, limits))
    draw = ImageDraw.Draw(image)
    long_side = max(image.size)
    font = ImageFont.load_default(max(12, round(long_side * TEXT)))
    for match in identified.matches:
        box, color = match.face.box, KNOWN if match.name else UNKNOWN
        draw.rectangle((box.left, box.top, box.right, box.bottom), outline=color, width=max(2, round(long_side * LINE)))
        distance = "" if match.distance is None else f" {match.distance:.2f}"
        corner = (box.left, box.bottom)
        text = f"{match.name or 'unknown'}{distance}"
        draw.rectangle(draw.textbbox(corner, text, font), fill=color)
        draw.text(corner, text, "white", font)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
