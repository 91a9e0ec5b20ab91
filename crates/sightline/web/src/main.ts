// The page: asks as one types, shows what was found, opens a photo; the address always says what is seen.

import * as api from "./api";
import * as camera from "./camera";
import { byId, colours, fileName, make } from "./dom";
import * as evaluation from "./evaluation";
import * as sentences from "./sentences";
import * as states from "./state";
import * as view from "./view";

const form = byId<HTMLFormElement>("search");
const q = byId<HTMLInputElement>("q");
const talk = byId("talk");
const grid = byId("grid");
const chip = byId("chip");
const chipPicture = byId<HTMLImageElement>("chip-picture");
const file = byId<HTMLInputElement>("file");
const drop = byId("drop");
const fields = ["not", "folder", "from", "until"] as const;
const sections: { [tab in states.Tab]: HTMLElement } = {
  photos: byId("photos"),
  sentences: byId("sentences-tab"),
  camera: byId("camera-tab"),
  evaluation: byId("evaluation-tab"),
};
const links = [...byId("tabs").querySelectorAll<HTMLAnchorElement>("a")];

let state = states.read(location.href);
let picture: File | null = null;
/** Pictures that were searched by, or compared with sentences. No address names one; an entry of the history does, by its mark. */
const pictures: File[] = [];
let hits: api.Hit[] = [];
let running: AbortController | null = null;
let photos = 0;

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What stands for a picture. A reload forgets the pictures, and no new one has an old mark. */
function mark(of: File | null): string | null {
  if (of === null) return null;
  if (!pictures.includes(of)) pictures.push(of);
  return `${performance.timeOrigin} ${pictures.indexOf(of)}`;
}

/** What an entry of the history carries: the picture that is searched by, and the one that sentences are compared with. */
const marks = (): Marks => ({ search: mark(picture), compare: mark(sentences.held()) });
type Marks = { search: string | null; compare: string | null };

/** Takes over a state: its fields, its address, its answer, its photo. */
function go(change: Partial<states.State>, history: "push" | "replace" | "keep"): void {
  const before = states.question(state).toString();
  state = { ...state, ...change };
  if (history === "push") window.history.pushState(marks(), "", states.write(state));
  if (history === "replace") window.history.replaceState(marks(), "", states.write(state));
  if (states.question(state).toString() !== before) void search();
  show();
}

/** Shows the tab that the state names, and what it says of it. */
function show(): void {
  for (const tab of states.tabs) sections[tab].hidden = tab !== state.tab;
  for (const link of links) {
    const tab = states.tabs.find((tab) => tab === link.dataset["tab"]) ?? "photos";
    link.href = states.write({ ...state, tab, photo: null });
    if (tab === state.tab) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  form.hidden = state.tab !== "photos";
  document.title = state.tab === "photos" ? "Sightline" : `Sightline: ${state.tab}`;
  showChip();
  void open();
  void sentences.update(state);
  camera.update(state);
  evaluation.update(state);
}

function fill(): void {
  q.value = state.q;
  for (const name of fields) byId<HTMLInputElement>(name).value = state[name];
  byId<HTMLDetailsElement>("filters").open = fields.some((name) => state[name] !== "");
}

async function search(): Promise<void> {
  running?.abort();
  const own = (running = new AbortController());
  const question = states.question(state);
  if (!question.has("q") && !question.has("like") && !picture) {
    hits = [];
    grid.replaceChildren();
    talk.textContent = `${photos} photos. Describe what you look for, or drop a picture here.`;
    grid.setAttribute("aria-busy", "false");
    return;
  }
  question.set("n", "60");
  grid.setAttribute("aria-busy", "true");
  const start = performance.now();
  try {
    const answer = await (picture ? api.similar(question, picture, own.signal) : api.search(question, own.signal));
    hits = answer.hits;
    draw(answer, performance.now() - start);
  } catch (error) {
    if (own.signal.aborted) return;
    hits = [];
    grid.replaceChildren();
    talk.textContent = message(error);
  } finally {
    if (running === own) grid.setAttribute("aria-busy", "false");
  }
}

function draw(answer: api.Answer, milliseconds: number): void {
  const parts: (Node | string)[] = [];
  if (!answer.answered) {
    const text = hits.length ? "Nothing here matches well; these are the nearest." : "No photo.";
    parts.push(make("strong", {}, text), " ");
  }
  parts.push(`${hits.length} of ${answer.searched} photos, ${milliseconds.toFixed(0)} ms.`);
  if (answer.unknown.length) {
    parts.push(" Not known to the model and left out: ", make("s", {}, answer.unknown.join(", ")), ".");
  }
  talk.replaceChildren(...parts);
  grid.replaceChildren(...hits.map(card));
}

function card(hit: api.Hit): HTMLElement {
  const found = hit.words.filter((word) => word.matched);
  const colour = colours(found.map((word) => word.region));
  const name = fileName(hit.image);
  const alt = found.length ? `${name}: ${found.map((word) => word.word).join(", ")}` : name;
  const picture = make("img", {
    src: api.thumbnail(hit.id),
    alt,
    loading: "lazy",
    width: String(hit.width),
    height: String(hit.height),
  });
  const words = make(
    "span",
    { class: "found", "aria-hidden": "true" },
    ...found.slice(0, 5).map((word) => make("b", { class: colour(word.region) }, word.word)),
  );
  const link = make("a", { href: states.write({ ...state, photo: hit.id }) }, picture, words);
  if (hit.duplicates?.length) link.append(make("i", { class: "copies" }, `+${hit.duplicates.length}`));
  link.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    go({ photo: hit.id }, "push");
  });
  return make("li", {}, link);
}

async function open(): Promise<void> {
  if (state.photo === null) {
    view.hide();
    return;
  }
  try {
    await view.show(state.photo, state.q, state.affinity);
  } catch (error) {
    talk.textContent = message(error);
    go({ photo: null }, "replace");
  }
}

function step(by: number): void {
  const at = hits.findIndex((hit) => hit.id === state.photo);
  const next = hits[at + by];
  if (at >= 0 && next) go({ photo: next.id }, "replace");
}

/** Back to the grid, and to the photo's place in it. */
function close(): void {
  const at = hits.findIndex((hit) => hit.id === state.photo);
  go({ photo: null }, "push");
  grid.querySelectorAll("a")[at]?.focus();
}

/** Makes a picture the one to search by, or none. */
function hold(given: File | null): void {
  if (given === picture) return;
  picture = given;
  if (chipPicture.src.startsWith("blob:")) URL.revokeObjectURL(chipPicture.src);
  if (given) chipPicture.src = URL.createObjectURL(given);
}

function take(given: File | null): void {
  hold(given);
  go({ tab: "photos", like: null, box: "", photo: null }, "push");
  void search();
}

/** A picture that was dropped or pasted goes to where one is. */
function given(picture: File): void {
  if (state.tab === "sentences") sentences.take(picture);
  else take(picture);
}

function showChip(): void {
  chip.hidden = !picture && state.like === null;
  if (picture) byId("chip-text").textContent = fileName(picture.name);
  if (!picture && state.like !== null) {
    chipPicture.src = api.thumbnail(state.like);
    byId("chip-text").textContent = state.box ? "this region" : "this photo";
  }
}

/** Moves between the grid's photos as they lie. */
function walk(key: string): boolean {
  const links = [...grid.querySelectorAll("a")];
  const at = links.indexOf(document.activeElement as HTMLAnchorElement);
  const top = links[0]?.getBoundingClientRect().top;
  const columns = Math.max(1, links.filter((link) => link.getBoundingClientRect().top === top).length);
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  if (by === undefined || at < 0) return false;
  if (at + by < 0) q.focus();
  else links[Math.min(at + by, links.length - 1)]?.focus();
  return true;
}

function listen(): void {
  let timer = 0;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    grid.querySelector("a")?.focus();
  });
  form.addEventListener("input", (event) => {
    if (event.target === file) return;
    clearTimeout(timer);
    timer = window.setTimeout(() => {
      const change: Partial<states.State> = { q: q.value, photo: null };
      for (const name of fields) change[name] = byId<HTMLInputElement>(name).value;
      go(change, "replace");
    }, 150);
  });
  window.addEventListener("popstate", (event) => {
    const [before, held] = [states.question(state).toString(), picture];
    state = states.read(location.href);
    const entry: Marks | null = event.state;
    const marked = (by: string | null | undefined): File | null => pictures.find((one) => mark(one) === by) ?? null;
    hold(marked(entry?.search));
    sentences.hold(marked(entry?.compare));
    fill();
    if (states.question(state).toString() !== before || picture !== held) void search();
    show();
  });
  for (const link of links) {
    link.addEventListener("click", (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      const tab = states.tabs.find((tab) => tab === link.dataset["tab"]) ?? "photos";
      if (tab !== state.tab) go({ tab, photo: null }, "push");
    });
  }
  byId("home").addEventListener("click", (event) => {
    event.preventDefault();
    hold(null);
    state = states.read(location.origin);
    window.history.pushState(null, "", "/");
    fill();
    show();
    void search();
    q.focus();
  });
  byId("pick").addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    take(file.files?.[0] ?? null);
    file.value = "";
  });
  byId("chip-remove").addEventListener("click", () => take(null));
  document.addEventListener("keydown", (event) => {
    if (state.photo !== null || state.tab !== "photos") return;
    if (event.key === "/" && document.activeElement?.tagName !== "INPUT") {
      event.preventDefault();
      q.focus();
    } else if (event.key === "ArrowDown" && document.activeElement === q) {
      event.preventDefault();
      grid.querySelector("a")?.focus();
    } else if (walk(event.key)) {
      event.preventDefault();
    }
  });
  let depth = 0;
  const hover = (by: number): void => {
    depth = by === 0 ? 0 : depth + by;
    drop.hidden = depth <= 0;
  };
  document.addEventListener("dragenter", (event) => {
    if (event.dataTransfer?.types.includes("Files")) hover(1);
  });
  document.addEventListener("dragleave", (event) => {
    if (event.dataTransfer?.types.includes("Files")) hover(-1);
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    hover(0);
    const dropped = event.dataTransfer?.files[0];
    if (dropped) given(dropped);
  });
  document.addEventListener("paste", (event) => {
    const pasted = event.clipboardData?.files[0];
    if (pasted) given(pasted);
  });
}

async function main(): Promise<void> {
  const status = await api.status();
  photos = status.photos;
  byId("pick").hidden = !status.reads_photos;
  view.begin(
    {
      close,
      step,
      affinity: (affinity) => go({ affinity }, "replace"),
      more: (like, box) => {
        hold(null);
        go({ like, box, photo: null }, "push");
      },
      sentences: (of) => go({ tab: "sentences", of, sentence: null, photo: null }, "push"),
    },
    status,
  );
  sentences.begin({ change: go, status });
  camera.begin((change) => go(change, "replace"), status);
  evaluation.begin((change) => go(change, "replace"), status);
  listen();
  fill();
  show();
  if (state.tab === "photos" && state.photo === null) q.focus();
  await search();
}

main().catch((error: unknown) => {
  talk.textContent = message(error);
});
