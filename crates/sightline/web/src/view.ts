// One photo: a line from each word of the query to the centre of its region (the paper's figure 1).

import * as api from "./api";
import { byId, colours, fileName, make } from "./dom";

export interface Actions {
  close(): void;
  step(by: number): void;
  affinity(value: number): void;
  more(id: number, box: string): void;
}

const dialog = byId<HTMLDialogElement>("view");
const scene = byId("scene");
const picture = byId("picture");
const photo = byId<HTMLImageElement>("photo");
const boxes = byId("boxes");
const words = byId("words");
const lines = byId<SVGSVGElement>("lines");
const slider = byId<HTMLInputElement>("affinity");
const sliderValue = byId<HTMLOutputElement>("affinity-value");
const allRegions = byId<HTMLInputElement>("all-regions");
const describeButton = byId<HTMLButtonElement>("describe");
const moreRegion = byId<HTMLButtonElement>("more-region");
const captions = byId("captions");

let shown: api.Regions | null = null;
let chosen: number | null = null;
let described: api.Description | null = null;
let asked = 0;
let colour = colours([]);
let can: api.Status | null = null;

export function begin(actions: Actions, status: api.Status): void {
  can = status;
  byId("close").addEventListener("click", () => actions.close());
  byId("previous").addEventListener("click", () => actions.step(-1));
  byId("next").addEventListener("click", () => actions.step(1));
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    actions.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target === slider) return;
    if (event.key === "ArrowLeft") actions.step(-1);
    if (event.key === "ArrowRight") actions.step(1);
  });
  slider.addEventListener("input", () => actions.affinity(Number(slider.value)));
  allRegions.addEventListener("change", draw);
  byId("more").addEventListener("click", () => shown && actions.more(shown.id, ""));
  moreRegion.addEventListener("click", () => {
    const box = shown && chosen !== null ? shown.boxes[chosen] : undefined;
    if (shown && box) actions.more(shown.id, box.map((x) => Math.round(x)).join(","));
  });
  describeButton.addEventListener("click", () => void describe());
  photo.addEventListener("load", drawLines);
  new ResizeObserver(drawLines).observe(scene);
}

/** Shows a photo with the words of `q`; the last call wins. */
export async function show(id: number, q: string, affinity: number): Promise<void> {
  const turn = ++asked;
  const isNew = shown?.id !== id;
  slider.value = String(affinity);
  sliderValue.value = affinity.toFixed(2);
  const record = await api.regions(id, q, affinity);
  if (turn !== asked) return;
  shown = record;
  if (isNew) {
    [chosen, described] = [null, null];
    photo.src = api.photo(id);
    captions.textContent = "";
  }
  byId("view-title").textContent = fileName(record.image);
  byId("facts").textContent = `${record.image} · ${record.width} × ${record.height} · ${record.taken}`;
  describeButton.hidden = !can?.captions;
  picture.style.aspectRatio = `${record.width} / ${record.height}`;
  picture.style.setProperty("--ratio", String(record.width / record.height));
  photo.alt = altText(record);
  if (!dialog.open) dialog.showModal();
  draw();
}

export function hide(): void {
  asked += 1;
  shown = null;
  if (dialog.open) dialog.close();
  photo.removeAttribute("src");
}

function altText(record: api.Regions): string {
  const caption = described?.captions[0]?.text;
  if (caption) return caption;
  const found = record.words.filter((word) => word.matched).map((word) => word.word);
  return found.length ? `Photo that shows ${found.join(", ")}` : `Photo ${fileName(record.image)}`;
}

async function describe(): Promise<void> {
  if (!shown) return;
  const id = shown.id;
  describeButton.disabled = true;
  captions.textContent = "describing…";
  try {
    const description = await api.describe(id, can?.region_captions ? 20 : 0);
    if (shown?.id !== id) return;
    described = description;
    photo.alt = altText(shown);
    draw();
  } catch (error) {
    captions.textContent = error instanceof Error ? error.message : String(error);
  } finally {
    describeButton.disabled = false;
  }
}

/** The caption of the region with this box. */
function captionOf(box: api.Box): string | undefined {
  return described?.regions?.find((region) => region.box.every((x, i) => Math.abs(x - (box[i] ?? 0)) < 1))?.text;
}

function draw(): void {
  if (!shown) return;
  const record = shown;
  const ofRegion = new Map<number, string[]>();
  for (const word of record.words.filter((word) => word.matched)) {
    ofRegion.set(word.region, [...(ofRegion.get(word.region) ?? []), word.word]);
  }
  colour = colours(record.words.filter((word) => word.matched).map((word) => word.region));
  words.replaceChildren(
    ...record.phrases.map((phrase) => {
      const own = record.words.slice(phrase.start, phrase.end);
      const matched = own.some((word) => word.matched);
      const button = make(
        "button",
        {
          type: "button",
          class: matched ? `word ${colour(phrase.region)}` : "word unmatched",
          "data-region": String(phrase.region),
          title: matched ? `region ${phrase.region}` : "no match",
        },
        ...own.flatMap((word) => [make("span", word.matched ? {} : { class: "unmatched" }, word.word), " "]),
        make("small", {}, phrase.score.toFixed(2)),
      );
      light(button, phrase.region);
      button.addEventListener("click", () => choose(phrase.region));
      return make("li", {}, button);
    }),
    ...record.unknown.map((word) => make("li", {}, make("s", { title: "the model does not know this word" }, word))),
  );
  const visible = record.boxes
    .map((_, region) => region)
    .filter((region) => allRegions.checked || ofRegion.has(region) || region === chosen)
    // Small boxes lie above large ones, so that each can be pointed at.
    .sort((a, b) => area(record.boxes[b]) - area(record.boxes[a]));
  boxes.replaceChildren(
    ...visible.map((region) => {
      const box = record.boxes[region] ?? [0, 0, 0, 0];
      const found = ofRegion.get(region)?.join(", ");
      const name = [region === 0 ? "whole photo" : `region ${region}`, found, captionOf(box)].filter(Boolean).join(": ");
      const button = make("button", {
        type: "button",
        class: `box ${colour(region)}${found ? "" : " faint"}${region === chosen ? " chosen" : ""}`,
        "data-region": String(region),
        "aria-label": name,
        "aria-pressed": String(region === chosen),
        title: name,
      });
      const [x1, y1, x2, y2] = box;
      button.style.left = `${(100 * x1) / record.width}%`;
      button.style.top = `${(100 * y1) / record.height}%`;
      button.style.width = `${(100 * (x2 - x1)) / record.width}%`;
      button.style.height = `${(100 * (y2 - y1)) / record.height}%`;
      light(button, region);
      button.addEventListener("click", () => choose(region));
      return button;
    }),
  );
  const chosenBox = chosen === null ? undefined : record.boxes[chosen];
  const texts = [described?.captions[0]?.text, chosenBox && captionOf(chosenBox)].filter(Boolean);
  if (texts.length) captions.textContent = texts.join(" — ");
  moreRegion.hidden = !(chosenBox && can?.reads_photos);
  drawLines();
}

const area = (box: api.Box | undefined): number => (box ? (box[2] - box[0]) * (box[3] - box[1]) : 0);

function choose(region: number): void {
  chosen = chosen === region ? null : region;
  draw();
  boxes.querySelector<HTMLElement>(`[data-region="${region}"]`)?.focus();
}

/** Pointing at an element lights up everything of its region. */
function light(element: HTMLElement, region: number): void {
  const set = (on: boolean): void => {
    scene.classList.toggle("lit", on);
    for (const other of scene.querySelectorAll(`[data-region="${region}"]`)) other.classList.toggle("lit", on);
  };
  element.addEventListener("pointerenter", () => set(true));
  element.addEventListener("pointerleave", () => set(false));
  element.addEventListener("focus", () => set(true));
  element.addEventListener("blur", () => set(false));
}

function drawLines(): void {
  if (!shown) return;
  const record = shown;
  const origin = scene.getBoundingClientRect();
  const frame = picture.getBoundingClientRect();
  lines.setAttribute("viewBox", `0 0 ${origin.width} ${origin.height}`);
  lines.replaceChildren();
  for (const word of words.querySelectorAll<HTMLElement>(".word:not(.unmatched)")) {
    const region = Number(word.dataset["region"]);
    const box = record.boxes[region];
    if (!box) continue;
    const from = word.getBoundingClientRect();
    const [x1, y1, x2, y2] = box;
    const end = {
      x: frame.left - origin.left + (((x1 + x2) / 2) * frame.width) / record.width,
      y: frame.top - origin.top + (((y1 + y2) / 2) * frame.height) / record.height,
    };
    const start = { x: from.left + from.width / 2 - origin.left, y: from.bottom - origin.top };
    for (const kind of ["halo", "line"]) {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      line.setAttribute("class", `${kind} ${colour(region)}`);
      line.setAttribute("data-region", String(region));
      line.setAttribute("x1", start.x.toFixed(1));
      line.setAttribute("y1", start.y.toFixed(1));
      line.setAttribute("x2", end.x.toFixed(1));
      line.setAttribute("y2", end.y.toFixed(1));
      lines.append(line);
    }
    const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    dot.setAttribute("class", colour(region));
    dot.setAttribute("data-region", String(region));
    dot.setAttribute("cx", end.x.toFixed(1));
    dot.setAttribute("cy", end.y.toFixed(1));
    dot.setAttribute("r", "4");
    lines.append(dot);
  }
}
