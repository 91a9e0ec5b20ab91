// The camera, described live: one frame at a time goes to the server, the next when its sentence is there.

import * as api from "./api";
import { byId, make } from "./dom";
import { place } from "./scene";
import type { State } from "./state";

/** Longest side of a frame that is sent, in pixels. */
const SIDE = 640;

/** Shortest time from one frame to the next, and wait where the server is busy, in milliseconds. */
const PAUSE = 150;
const BUSY = 1000;

/** Captions that are kept. */
const KEPT = 8;

const video = byId<HTMLVideoElement>("camera");
const frame = byId("camera-frame");
const boxes = byId("camera-boxes");
const button = byId<HTMLButtonElement>("camera-button");
const regions = byId<HTMLInputElement>("camera-regions");
const talk = byId("camera-talk");
const caption = byId("camera-caption");
const history = byId("camera-history");

let can: api.Status | null = null;
let running: AbortController | null = null;

export function begin(change: (change: Partial<State>) => void, status: api.Status): void {
  can = status;
  button.disabled = !status.captions;
  byId("camera-regions-label").hidden = !status.region_captions;
  talk.textContent = status.captions
    ? "Frames go to this server only, and are not kept."
    : "This server was started without --caption-model, so it cannot describe.";
  button.addEventListener("click", () => (running ? stop() : void start()));
  regions.addEventListener("change", () => change({ regions: regions.checked }));
}

export function update(state: State): void {
  regions.checked = state.regions;
  if (state.tab !== "camera") stop();
}

/** Why there is no camera, in one line. */
function reason(error: unknown): string {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "NotAllowedError" || name === "SecurityError") {
    return "The camera was not allowed. Allow it for this page in the browser's settings and start again.";
  }
  if (name === "NotFoundError" || name === "OverconstrainedError") return "There is no camera.";
  if (name === "NotReadableError") return "The camera is in use by another program.";
  return error instanceof Error ? error.message : String(error);
}

async function start(): Promise<void> {
  // Browsers hide the camera from pages that came unencrypted from elsewhere.
  if (!navigator.mediaDevices) {
    talk.textContent = "The browser gives the camera only to pages of this machine (localhost) or over https.";
    return;
  }
  const own = (running = new AbortController());
  button.textContent = "Stop";
  talk.textContent = "Waiting for the camera…";
  try {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 720 } },
    });
    if (own.signal.aborted) {
      for (const track of stream.getTracks()) track.stop();
      return;
    }
    // The cable was pulled, or the permission taken back.
    for (const track of stream.getTracks()) track.addEventListener("ended", stop);
    video.srcObject = stream;
    await video.play();
    frame.hidden = false;
    await watch(own.signal);
  } catch (error) {
    if (own.signal.aborted) return;
    stop();
    talk.textContent = reason(error);
  }
}

function stop(): void {
  if (!running) return;
  running.abort();
  running = null;
  button.textContent = "Start";
  talk.textContent = "Stopped.";
  boxes.replaceChildren();
  frame.hidden = true;
  const stream = video.srcObject;
  if (stream instanceof MediaStream) for (const track of stream.getTracks()) track.stop();
  video.srcObject = null;
}

const wait = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Describes frame after frame until it is stopped. */
async function watch(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    // A page in the background asks for nothing.
    if (document.hidden || video.videoWidth === 0) {
      await wait(PAUSE);
      continue;
    }
    const scale = Math.min(1, SIDE / Math.max(video.videoWidth, video.videoHeight));
    const size = { width: Math.round(scale * video.videoWidth), height: Math.round(scale * video.videoHeight) };
    const start = performance.now();
    try {
      const most = regions.checked && can?.region_captions ? 6 : 0;
      const description = await api.describePicture(await grab(size), most, signal);
      if (signal.aborted) return;
      show(description, size, performance.now() - start);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof api.Refusal && error.status === 503)) throw error;
      talk.textContent = "The server is busy.";
      await wait(BUSY);
    }
    await wait(PAUSE);
  }
}

/** The frame that the camera shows, as a JPEG. */
function grab({ width, height }: { width: number; height: number }): Promise<Blob> {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d")?.drawImage(video, 0, 0, width, height);
  return new Promise((resolve, reject) => {
    const done = (blob: Blob | null): void => (blob ? resolve(blob) : reject(new Error("the frame cannot be encoded")));
    canvas.toBlob(done, "image/jpeg", 0.85);
  });
}

function show(description: api.Description, size: { width: number; height: number }, milliseconds: number): void {
  const text = description.captions[0]?.text ?? "";
  talk.textContent = `${milliseconds.toFixed(0)} ms a frame.`;
  // A sentence that stays is said once.
  if (text && text !== caption.textContent) {
    caption.textContent = text;
    const time = new Date().toLocaleTimeString();
    history.prepend(make("li", {}, make("time", {}, time), " ", text));
    while (history.children.length > KEPT) history.lastElementChild?.remove();
  }
  boxes.replaceChildren(
    ...(description.regions ?? []).map((region, at) => {
      const box = make("div", { class: `box c${at % 8}` }, make("span", { class: "label" }, region.text));
      place(box, region.box, size);
      return box;
    }),
  );
}
