// One photo of the index, opened: its words and regions, its captions, and where to go from it.

import * as api from "./api";
import { byId, fileName } from "./dom";
import { Scene } from "./scene";

export interface Actions {
  close(): void;
  step(by: number): void;
  affinity(value: number): void;
  more(id: number, box: string): void;
  sentences(id: number): void;
}

const dialog = byId<HTMLDialogElement>("view");
const scene = new Scene(byId("scene"));
const slider = byId<HTMLInputElement>("affinity");
const sliderValue = byId<HTMLOutputElement>("affinity-value");
const allRegions = byId<HTMLInputElement>("all-regions");
const describeButton = byId<HTMLButtonElement>("describe");
const moreRegion = byId<HTMLButtonElement>("more-region");
const captions = byId("captions");

let shown: api.Regions | null = null;
let described: api.Description | null = null;
let asked = 0;
let describing = false;
let can: api.Status | null = null;

export function begin(actions: Actions, status: api.Status): void {
  can = status;
  scene.nameOf = captionOf;
  scene.onChoice = tell;
  byId("close").addEventListener("click", () => actions.close());
  byId("previous").addEventListener("click", () => actions.step(-1));
  byId("next").addEventListener("click", () => actions.step(1));
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    actions.close();
  });
  // Where what had the focus was drawn anew, a key goes to the page and not to the dialog.
  document.addEventListener("keydown", (event) => {
    // With another key they are the browser's own.
    if (!dialog.open || event.target === slider || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") actions.step(-1);
    if (event.key === "ArrowRight") actions.step(1);
  });
  slider.addEventListener("input", () => actions.affinity(Number(slider.value)));
  allRegions.addEventListener("change", () => {
    scene.allRegions = allRegions.checked;
    scene.draw();
  });
  byId("more").addEventListener("click", () => shown && actions.more(shown.id, ""));
  byId("to-sentences").addEventListener("click", () => shown && actions.sentences(shown.id));
  moreRegion.addEventListener("click", () => {
    const box = scene.chosenBox;
    if (shown && box) actions.more(shown.id, box.map((x) => Math.round(x)).join(","));
  });
  describeButton.addEventListener("click", () => void describe());
}

/** Shows a photo with the words of `q`; the last call wins. */
export async function show(id: number, q: string, affinity: number): Promise<void> {
  const turn = ++asked;
  const isNew = shown?.id !== id;
  const record = await api.regions(id, q, affinity);
  if (turn !== asked) return;
  shown = record;
  setSlider(affinity, record.largest_affinity);
  if (isNew) {
    [scene.chosen, described] = [null, null];
    scene.image.src = api.photo(id);
    captions.textContent = "";
  }
  byId("view-title").textContent = fileName(record.image);
  byId("facts").textContent = `${record.image} · ${record.width} × ${record.height} · ${record.taken}`;
  describeButton.hidden = !can?.captions;
  scene.image.alt = altText(record);
  if (!dialog.open) dialog.showModal();
  scene.show(record);
  tell();
}

export function hide(): void {
  asked += 1;
  shown = null;
  if (dialog.open) dialog.close();
  scene.clear();
}

/** Ends the slider where all words lie on one region: at hundredths for unit vectors, at several for raw products. */
function setSlider(affinity: number, largest: number): void {
  slider.disabled = largest <= 0;
  const exponent = slider.disabled ? 0 : Math.floor(Math.log10(largest));
  const digits = Math.max(0, 2 - exponent);
  const unit = 10 ** (exponent - 1);
  slider.step = (unit / 2).toFixed(digits);
  slider.max = String(Number((Math.ceil(largest / unit) * unit).toFixed(digits)));
  slider.value = String(affinity);
  sliderValue.value = affinity.toFixed(digits);
}

function altText(record: api.Regions): string {
  const caption = described?.captions[0]?.text;
  if (caption) return caption;
  const found = record.words.filter((word) => word.matched).map((word) => word.word);
  return found.length ? `Photo that shows ${found.join(", ")}` : `Photo ${fileName(record.image)}`;
}

/** One photo at a time. */
async function describe(): Promise<void> {
  if (!shown || describing) return;
  const id = shown.id;
  describing = true;
  // Not `disabled`, which would take the focus out of the dialog.
  describeButton.setAttribute("aria-disabled", "true");
  captions.textContent = "describing…";
  try {
    const description = await api.describe(id, can?.region_captions ? 20 : 0);
    if (shown?.id !== id) return;
    described = description;
    scene.image.alt = altText(shown);
    scene.draw();
    tell();
  } catch (error) {
    if (shown?.id === id) captions.textContent = error instanceof Error ? error.message : String(error);
  } finally {
    describing = false;
    describeButton.removeAttribute("aria-disabled");
  }
}

/** The caption of the region with this box. */
function captionOf(box: api.Box): string | undefined {
  return described?.regions?.find((region) => region.box.every((x, i) => Math.abs(x - (box[i] ?? 0)) < 1))?.text;
}

/** Captions of the photo and of the chosen region, and what can be done with that region. */
function tell(): void {
  const box = scene.chosenBox;
  const texts = [described?.captions[0]?.text, box && captionOf(box)].filter(Boolean);
  if (texts.length) captions.textContent = texts.join(" — ");
  moreRegion.hidden = !(box && can?.reads_photos);
}
