// Photo to sentence: which of these sentences fits the photo best, and which word means what in it.

import * as api from "./api";
import { byId, fileName, make } from "./dom";
import { Scene, single } from "./scene";
import type { State } from "./state";

export interface Actions {
  change(change: Partial<State>, history: "push" | "replace"): void;
  status: api.Status;
}

const text = byId<HTMLTextAreaElement>("sentences");
const file = byId<HTMLInputElement>("sentences-file");
const pick = byId<HTMLButtonElement>("sentences-pick");
const talk = byId("sentences-talk");
const list = byId("ranking");
const result = byId("match");
const scene = new Scene(result);

let actions: Actions | null = null;
let picture: File | null = null;
/** What was asked last; the same is not asked again. */
let asked = "";
let running: AbortController | null = null;
let answer: api.Sentences | null = null;
let timer = 0;

export function begin(given: Actions): void {
  actions = given;
  pick.hidden = !given.status.reads_photos;
  pick.addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    const chosen = file.files?.[0];
    file.value = "";
    if (chosen) take(chosen);
  });
  text.addEventListener("input", () => {
    clearTimeout(timer);
    timer = window.setTimeout(() => given.change({ sentences: text.value, sentence: null }, "replace"), 300);
  });
  list.addEventListener("keydown", (event) => {
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const buttons = [...list.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
    if (by === undefined || at < 0) return;
    event.preventDefault();
    buttons[at + by]?.focus();
    buttons[at + by]?.click();
  });
}

/** The picture that sentences are compared with, none where it is a photo of the index. */
export const held = (): File | null => picture;

/** Makes a picture the one to compare with, or none. */
export function hold(given: File | null): void {
  if (given !== picture) asked = "";
  picture = given;
}

/** A picture to compare with, in place of a photo of the index. */
export function take(given: File): void {
  hold(given);
  actions?.change({ tab: "sentences", of: null, sentence: null }, "push");
}

const base64 = (blob: Blob): Promise<string> =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).replace(/^[^,]*,/, ""));
    reader.onerror = () => reject(new Error("the picture cannot be read"));
    reader.readAsDataURL(blob);
  });

/** Shows what the state names. */
export async function update(state: State): Promise<void> {
  if (state.of !== null) picture = null;
  if (text.value.trim() !== state.sentences.trim()) text.value = state.sentences;
  const sentences = state.sentences.split("\n").map((line) => line.trim());
  const question = JSON.stringify([state.of, picture?.name ?? null, sentences]);
  if (question === asked) {
    mark(state);
    return;
  }
  asked = question;
  running?.abort();
  const hasPhoto = picture !== null || state.of !== null;
  const given = sentences.filter((line) => line !== "");
  if (!hasPhoto || given.length === 0) {
    answer = null;
    list.replaceChildren();
    scene.clear();
    showPhoto(state);
    const drop = actions?.status.reads_photos ? "Drop a picture here, or open" : "Open";
    talk.textContent = hasPhoto
      ? "Write sentences, one a line; those that fit come first."
      : `${drop} one of the photos and choose “Sentences for this photo”.`;
    return;
  }
  const own = (running = new AbortController());
  list.setAttribute("aria-busy", "true");
  try {
    const of = picture ? { picture: await base64(picture) } : { id: state.of ?? 0 };
    const found = await api.sentences(of, given, own.signal);
    if (own.signal.aborted) return;
    answer = found;
    showPhoto(state);
    const [listed, left] = [found.sentences.length, found.left_out.length];
    talk.textContent =
      (listed < found.ranked
        ? `The best ${listed} of ${found.ranked} sentences.`
        : listed === 1
          ? "One sentence."
          : `${listed} sentences, best first.`) +
      (left ? ` ${left} without any word that the model knows left out.` : "");
    draw(state);
  } catch (error) {
    if (own.signal.aborted) return;
    answer = null;
    list.replaceChildren();
    scene.clear();
    showPhoto(state);
    talk.textContent = error instanceof Error ? error.message : String(error);
  } finally {
    if (running === own) list.setAttribute("aria-busy", "false");
  }
}

function showPhoto(state: State): void {
  const old = scene.image.src;
  const source = picture ? `picture:${picture.name}:${picture.lastModified}` : state.of === null ? "" : api.photo(state.of);
  result.hidden = source === "";
  if (scene.image.dataset["source"] === source && old) return;
  scene.image.dataset["source"] = source;
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
  if (picture) scene.image.src = URL.createObjectURL(picture);
  else if (source) scene.image.src = source;
  scene.image.alt = picture ? `Picture ${fileName(picture.name)}` : "The photo";
}

function draw(state: State): void {
  if (!answer) return;
  const scores = answer.sentences.map((sentence) => sentence.score);
  const [most, least] = [Math.max(...scores), Math.min(...scores, 0)];
  list.replaceChildren(
    ...answer.sentences.map((sentence) => {
      const share = most > least ? (sentence.score - least) / (most - least) : 1;
      const meter = make("span", { class: "meter", "aria-hidden": "true" });
      meter.style.setProperty("--share", `${(100 * share).toFixed(1)}%`);
      const button = make(
        "button",
        { type: "button", "data-sentence": String(sentence.index) },
        make("span", { class: "said" }, sentence.sentence),
        make("small", {}, sentence.score.toFixed(2)),
        meter,
      );
      button.addEventListener("click", () => actions?.change({ sentence: sentence.index }, "replace"));
      return make("li", {}, button);
    }),
  );
  mark(state);
}

/** Draws the words of the chosen sentence, of the best one where none is chosen. */
function mark(state: State): void {
  if (!answer) return;
  const shown = answer.sentences.find((sentence) => sentence.index === state.sentence) ?? answer.sentences[0];
  for (const button of list.querySelectorAll<HTMLElement>("button")) {
    button.setAttribute("aria-pressed", String(button.dataset["sentence"] === String(shown?.index)));
  }
  if (!shown) return;
  scene.image.alt = `${answer.id === null ? "The picture" : fileName(answer.image)}: ${shown.sentence}`;
  scene.show({ ...answer, words: shown.words, phrases: single(shown.words), unknown: shown.unknown });
}
