/* The drawing pad, for models of ink on paper. */

import { at } from "./service.js";

/* take(file): called with the drawing. */
export function startDrawing(take) {
  const pad = at("pad"), pen = pad.getContext("2d");
  const wipe = () => { pen.fillStyle = "#fff"; pen.fillRect(0, 0, pad.width, pad.height); };
  const spot = event => {
    const box = pad.getBoundingClientRect();
    return [(event.clientX - box.left) * pad.width / box.width, (event.clientY - box.top) * pad.height / box.height];
  };
  wipe();
  pen.lineWidth = 20;
  pen.lineCap = pen.lineJoin = "round";
  pad.onpointerdown = event => {
    pad.setPointerCapture(event.pointerId);
    pen.beginPath();
    pen.moveTo(...spot(event));
    pen.lineTo(...spot(event));
    pen.stroke();
    pad.onpointermove = moved => { pen.lineTo(...spot(moved)); pen.stroke(); };
  };
  pad.onpointerup = pad.onpointercancel = () => { pad.onpointermove = null; };
  at("clear").onclick = wipe;
  at("ask").onclick = () => pad.toBlob(blob => take(new File([blob], "drawing.png", { type: "image/png" })), "image/png");
}
