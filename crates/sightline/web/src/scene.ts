// A photo under a sentence: a line from each word to the centre of its region (the paper's figure 1).

import type { Box, Phrase, Word } from "./api";
import { colours, make } from "./dom";

/** What a scene shows. */
export interface Record {
  width: number;
  height: number;
  boxes: Box[];
  words: Word[];
  phrases: Phrase[];
  unknown: string[];
}

/** Every word by itself, where nothing was asked of neighbours. */
export const single = (words: Word[]): Phrase[] =>
  words.map((word, at) => ({ start: at, end: at + 1, text: word.word, region: word.region, score: word.score }));

const area = (box: Box | undefined): number => (box ? (box[2] - box[0]) * (box[3] - box[1]) : 0);

/** An element with `.words`, `.picture` (an image and `.boxes`) and `.lines`. */
export class Scene {
  readonly image: HTMLImageElement;
  record: Record | null = null;
  /** Whether regions without a word are shown too. */
  allRegions = false;
  chosen: number | null = null;
  /** What a region is called beside its number and its words. */
  nameOf: (box: Box) => string | undefined = () => undefined;
  onChoice: () => void = () => undefined;
  readonly #root: HTMLElement;
  readonly #words: HTMLElement;
  readonly #picture: HTMLElement;
  readonly #boxes: HTMLElement;
  readonly #lines: SVGSVGElement;
  #colour = colours([]);

  constructor(root: HTMLElement) {
    const part = <T extends Element>(name: string): T => {
      const found = root.querySelector<T>(name);
      if (!found) throw new Error(`the scene has no ${name}`);
      return found;
    };
    this.#root = root;
    this.#words = part(".words");
    this.#picture = part(".picture");
    this.#boxes = part(".boxes");
    this.#lines = part<SVGSVGElement>(".lines");
    this.image = part("img");
    this.image.addEventListener("load", () => this.#drawLines());
    new ResizeObserver(() => this.#drawLines()).observe(root);
  }

  show(record: Record): void {
    this.record = record;
    this.#picture.style.aspectRatio = `${record.width} / ${record.height}`;
    this.#picture.style.setProperty("--ratio", String(record.width / record.height));
    this.draw();
  }

  clear(): void {
    this.record = null;
    this.chosen = null;
    this.image.removeAttribute("src");
    for (const part of [this.#words, this.#boxes, this.#lines]) part.replaceChildren();
  }

  /** The box that was chosen. */
  get chosenBox(): Box | undefined {
    return this.chosen === null ? undefined : this.record?.boxes[this.chosen];
  }

  draw(): void {
    const record = this.record;
    if (!record) return;
    const matched = record.words.filter((word) => word.matched);
    const ofRegion = new Map<number, string[]>();
    for (const word of matched) ofRegion.set(word.region, [...(ofRegion.get(word.region) ?? []), word.word]);
    this.#colour = colours(matched.map((word) => word.region));
    this.#words.replaceChildren(
      ...record.phrases.map((phrase) => make("li", {}, this.#word(phrase, record.words.slice(phrase.start, phrase.end)))),
      ...record.unknown.map((word) => make("li", {}, make("s", { title: "the model does not know this word" }, word))),
    );
    const visible = record.boxes
      .map((_, region) => region)
      .filter((region) => this.allRegions || ofRegion.has(region) || region === this.chosen)
      // Small boxes lie above large ones, so that each can be pointed at.
      .sort((a, b) => area(record.boxes[b]) - area(record.boxes[a]));
    this.#boxes.replaceChildren(...visible.map((region) => this.#box(record, region, ofRegion.get(region)?.join(", "))));
    this.#drawLines();
  }

  #word(phrase: Phrase, own: Word[]): HTMLElement {
    const matched = own.some((word) => word.matched);
    const button = make(
      "button",
      {
        type: "button",
        class: matched ? `word ${this.#colour(phrase.region)}` : "word unmatched",
        "data-region": String(phrase.region),
        title: matched ? `region ${phrase.region}` : "no match",
      },
      ...own.flatMap((word) => [make("span", word.matched ? {} : { class: "unmatched" }, word.word), " "]),
      make("small", {}, phrase.score.toFixed(2)),
    );
    this.#light(button, phrase.region);
    button.addEventListener("click", () => this.#choose(phrase.region));
    return button;
  }

  #box(record: Record, region: number, found: string | undefined): HTMLElement {
    const box = record.boxes[region] ?? [0, 0, 0, 0];
    const name = [region === 0 ? "whole photo" : `region ${region}`, found, this.nameOf(box)].filter(Boolean).join(": ");
    const button = make("button", {
      type: "button",
      class: `box ${this.#colour(region)}${found ? "" : " faint"}${region === this.chosen ? " chosen" : ""}`,
      "data-region": String(region),
      "aria-label": name,
      "aria-pressed": String(region === this.chosen),
      title: name,
    });
    place(button, box, record);
    this.#light(button, region);
    button.addEventListener("click", () => this.#choose(region));
    return button;
  }

  #choose(region: number): void {
    this.chosen = this.chosen === region ? null : region;
    this.draw();
    this.#boxes.querySelector<HTMLElement>(`[data-region="${region}"]`)?.focus();
    this.onChoice();
  }

  /** Pointing at an element lights up everything of its region. */
  #light(element: HTMLElement, region: number): void {
    const set = (on: boolean): void => {
      this.#root.classList.toggle("lit", on);
      for (const other of this.#root.querySelectorAll(`[data-region="${region}"]`)) other.classList.toggle("lit", on);
    };
    element.addEventListener("pointerenter", () => set(true));
    element.addEventListener("pointerleave", () => set(false));
    element.addEventListener("focus", () => set(true));
    element.addEventListener("blur", () => set(false));
  }

  #drawLines(): void {
    const record = this.record;
    if (!record) return;
    const origin = this.#root.getBoundingClientRect();
    const frame = this.#picture.getBoundingClientRect();
    this.#lines.setAttribute("viewBox", `0 0 ${origin.width} ${origin.height}`);
    this.#lines.replaceChildren();
    for (const word of this.#words.querySelectorAll<HTMLElement>(".word:not(.unmatched)")) {
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
      const ends = { x1: start.x, y1: start.y, x2: end.x, y2: end.y };
      const own = { "data-region": region };
      this.#lines.append(
        svg("line", { class: `halo ${this.#colour(region)}`, ...own, ...ends }),
        svg("line", { class: `line ${this.#colour(region)}`, ...own, ...ends }),
        svg("circle", { class: this.#colour(region), ...own, cx: end.x, cy: end.y, r: 4 }),
      );
    }
  }
}

/** Puts an element over the part of a picture that a box names. */
export function place(element: HTMLElement, [x1, y1, x2, y2]: Box, { width, height }: { width: number; height: number }): void {
  element.style.left = `${(100 * x1) / width}%`;
  element.style.top = `${(100 * y1) / height}%`;
  element.style.width = `${(100 * (x2 - x1)) / width}%`;
  element.style.height = `${(100 * (y2 - y1)) / height}%`;
}

/** An element of SVG; numbers are rounded to tenths. */
export function svg(tag: string, attributes: { [name: string]: string | number }, ...children: (Node | string)[]): SVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, typeof value === "number" ? String(Math.round(value * 10) / 10) : value);
  }
  element.append(...children);
  return element;
}
