// Curves: lines over steps or passes with axes, drawn as SVG for the width there is; pointing or arrow keys read values.

import { make } from "./dom";
import { svg } from "./scene";

export interface Line {
  name: string;
  /** A class that sets `--line`. */
  colour: string;
  points: [x: number, y: number][];
}

export interface Axes {
  title: string;
  x: string;
  y: string;
  /** Lines across at a known value. */
  marks?: { name: string; y: number }[];
}

const HEIGHT = 260;
const EDGE = { left: 62, right: 14, top: 12, bottom: 42 };

/** At most about `n` round numbers from `least` to `most`. */
export function ticks(least: number, most: number, n: number): number[] {
  const rough = (most - least) / n;
  if (!(rough > 0) || !Number.isFinite(rough)) return [least];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= rough) ?? 10 * power;
  const found = [];
  for (let i = Math.ceil(least / step - 1e-9); i * step <= most + 1e-9 * step; i++) found.push(i * step);
  return found;
}

/** A number in as few digits as tell it. */
export function short(value: number): string {
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1).replace("e+", "e");
  if (size >= 100) return value.toLocaleString("en", { maximumFractionDigits: 0 });
  return String(Number(value.toPrecision(3)));
}

/** One chart: a figure that is kept and drawn anew when its lines or its width change. */
export class Chart {
  readonly element: HTMLElement;
  readonly #title = make("figcaption");
  readonly #drawing = svg("svg", { class: "chart", role: "img", tabindex: "0" });
  readonly #readout = make("ul", { class: "readout" });
  #axes: Axes = { title: "", x: "", y: "" };
  #lines: Line[] = [];
  /** The place on the x axis that is read, if any. */
  #cursor: number | null = null;
  #toX = (x: number): number => x;

  constructor() {
    this.element = make("figure", {}, this.#title, this.#drawing, this.#readout);
    new ResizeObserver(() => this.#draw()).observe(this.element);
    this.#drawing.addEventListener("pointermove", (event) => this.#point(event as PointerEvent));
    this.#drawing.addEventListener("pointerleave", () => this.#read(null));
    this.#drawing.addEventListener("blur", () => this.#read(null));
    this.#drawing.addEventListener("keydown", (event) => this.#key(event as KeyboardEvent));
  }

  update(axes: Axes, lines: Line[]): void {
    this.#axes = axes;
    this.#lines = lines.filter((line) => line.points.length > 0);
    this.element.hidden = this.#lines.length === 0;
    this.#draw();
  }

  get #places(): number[] {
    return [...new Set(this.#lines.flatMap((line) => line.points.map(([x]) => x)))].sort((a, b) => a - b);
  }

  #point(event: PointerEvent): void {
    const at = event.clientX - this.#drawing.getBoundingClientRect().left;
    const away = (x: number): number => Math.abs(this.#toX(x) - at);
    const places = this.#places;
    this.#read(places.reduce((best, x) => (away(x) < away(best) ? x : best), places[0] ?? 0));
  }

  #key(event: KeyboardEvent): void {
    const places = this.#places;
    const at = this.#cursor === null ? -1 : places.indexOf(this.#cursor);
    const last = places.length - 1;
    const to = { ArrowLeft: at < 0 ? last : at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.#read(places[Math.max(0, Math.min(last, to))] ?? null);
  }

  #read(place: number | null): void {
    if (place === this.#cursor) return;
    this.#cursor = place;
    this.#draw();
  }

  #draw(): void {
    const width = this.element.clientWidth;
    if (width === 0 || this.#lines.length === 0) return;
    const { title, x: xName, y: yName, marks = [] } = this.#axes;
    this.#title.textContent = title;
    const points = this.#lines.flatMap((line) => line.points);
    const range = (values: number[]): [number, number] => [Math.min(...values), Math.max(...values)];
    const [x1, x2] = range(points.map(([x]) => x));
    const [y1, y2] = range([...points.map(([, y]) => y), ...marks.map((mark) => mark.y)]);
    const room = y2 > y1 ? 0.05 * (y2 - y1) : Math.max(0.05 * Math.abs(y1), 1e-6);
    const [low, high] = [y1 - room, y2 + room];
    const inner = { width: width - EDGE.left - EDGE.right, height: HEIGHT - EDGE.top - EDGE.bottom };
    const toX = (x: number): number => EDGE.left + (x2 > x1 ? ((x - x1) / (x2 - x1)) * inner.width : inner.width / 2);
    const toY = (y: number): number => EDGE.top + (1 - (y - low) / (high - low)) * inner.height;
    this.#toX = toX;
    const [right, bottom] = [width - EDGE.right, HEIGHT - EDGE.bottom];

    const parts: Node[] = [];
    for (const y of ticks(low, high, 5)) {
      parts.push(svg("line", { class: "rule", x1: EDGE.left, x2: right, y1: toY(y), y2: toY(y) }));
      parts.push(svg("text", { class: "tick", x: EDGE.left - 8, y: toY(y) + 4, "text-anchor": "end" }, short(y)));
    }
    for (const x of ticks(x1, x2, Math.max(2, inner.width / 110))) {
      parts.push(svg("line", { class: "rule", x1: toX(x), x2: toX(x), y1: bottom, y2: bottom + 5 }));
      parts.push(svg("text", { class: "tick", x: toX(x), y: bottom + 18, "text-anchor": "middle" }, short(x)));
    }
    parts.push(svg("line", { class: "axis", x1: EDGE.left, x2: right, y1: bottom, y2: bottom }));
    parts.push(svg("text", { class: "name", x: EDGE.left + inner.width / 2, y: HEIGHT - 6, "text-anchor": "middle" }, xName));
    const middle = EDGE.top + inner.height / 2;
    const turned = { class: "name", x: 14, y: middle, transform: `rotate(-90 14 ${middle})`, "text-anchor": "middle" };
    parts.push(svg("text", turned, yName));
    for (const mark of marks) {
      parts.push(svg("line", { class: "mark", x1: EDGE.left, x2: right, y1: toY(mark.y), y2: toY(mark.y) }));
      parts.push(svg("text", { class: "tick", x: right, y: toY(mark.y) - 5, "text-anchor": "end" }, mark.name));
    }
    for (const line of this.#lines) {
      const corners = line.points.map(([x, y]) => `${toX(x).toFixed(1)},${toY(y).toFixed(1)}`).join(" ");
      parts.push(svg("polyline", { class: `curve ${line.colour}`, points: corners }));
      // A curve of few points is read at its points; a single one would not be seen at all.
      if (line.points.length <= 30) {
        for (const [x, y] of line.points) {
          parts.push(svg("circle", { class: `dot ${line.colour}`, cx: toX(x), cy: toY(y), r: 3 }));
        }
      }
    }
    const cursor = this.#cursor;
    const read = this.#lines.map((line) => ({ line, point: cursor === null ? line.points.at(-1) : nearest(line, cursor) }));
    if (cursor !== null) {
      parts.push(svg("line", { class: "cursor", x1: toX(cursor), x2: toX(cursor), y1: EDGE.top, y2: bottom }));
      for (const { line, point } of read) {
        if (point) parts.push(svg("circle", { class: `dot ${line.colour}`, cx: toX(point[0]), cy: toY(point[1]), r: 5 }));
      }
    }
    this.#drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.#drawing.setAttribute("height", String(HEIGHT));
    const say = read.map(({ line, point }) => point && `${line.name}: ${short(point[1])} at ${xName} ${short(point[0])}`);
    this.#drawing.setAttribute("aria-label", `${title}. ${say.filter(Boolean).join("; ")}. Arrow keys read other values.`);
    this.#drawing.replaceChildren(...parts);
    this.#readout.replaceChildren(
      ...read.map(({ line, point }) =>
        make(
          "li",
          {},
          make("span", { class: `swatch ${line.colour}` }),
          `${line.name} `,
          make("b", {}, point ? short(point[1]) : "–"),
          make("small", {}, point ? ` ${xName} ${short(point[0])}` : ""),
        ),
      ),
    );
  }
}

/** The point of a line that lies nearest on the x axis. */
function nearest(line: Line, x: number): [number, number] | undefined {
  return line.points.reduce((best, own) => (Math.abs(own[0] - x) < Math.abs(best[0] - x) ? own : best));
}
