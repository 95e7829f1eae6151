/* The camera: one photo, or live, a frame at a time. */

import { at, made } from "./service.js";

const LIVE_SIDE = 640; // pixels of the long side of a live frame
const LIVE_PAUSE_MS = 100;

/* take(file): called with a photo. label(blob): resolves to the text for a live frame. tell(text): says what went wrong. */
export function startCamera(take, label, tell) {
  const video = at("video"), studio = at("studio"), live = at("live");
  let isLive = false;
  if (!navigator.mediaDevices?.getUserMedia) return; // without TLS, phones offer the file chooser's camera only
  at("film").hidden = false;
  at("phone").hidden = !matchMedia("(pointer: coarse)").matches;

  at("film").onclick = async () => {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      studio.showModal();
    } catch (error) { tell(`The camera cannot be used: ${error.message}`); }
  };
  studio.onclose = () => {
    setLive(false);
    for (const track of video.srcObject.getTracks()) track.stop();
  };
  at("leave").onclick = () => studio.close();
  at("shoot").onclick = async () => {
    const blob = await frame(Infinity, 0.95);
    studio.close();
    take(new File([blob], "photo.jpg", { type: "image/jpeg" }));
  };
  live.onclick = () => {
    setLive(!isLive);
    if (isLive) watch();
  };

  function setLive(on) {
    isLive = on;
    live.setAttribute("aria-pressed", String(on));
    live.textContent = on ? "Stop" : "Classify live";
    at("live-told").textContent = "";
  }

  function frame(side, quality) {
    const still = made("canvas"), scale = Math.min(1, side / Math.max(video.videoWidth, video.videoHeight));
    [still.width, still.height] = [video.videoWidth * scale, video.videoHeight * scale];
    still.getContext("2d").drawImage(video, 0, 0, still.width, still.height);
    return new Promise(resolve => still.toBlob(resolve, "image/jpeg", quality));
  }

  let isOut = false; // never more than one request
  async function watch() {
    if (isOut) return;
    isOut = true;
    while (isLive) {
      try {
        const text = await label(await frame(LIVE_SIDE, 0.8));
        if (isLive) at("live-told").textContent = text;
      } catch (error) {
        setLive(false);
        at("live-told").textContent = error.message;
      }
      await new Promise(resolve => setTimeout(resolve, LIVE_PAUSE_MS));
    }
    isOut = false;
  }
}
