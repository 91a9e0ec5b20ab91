// Evaluation: tables with the paper's rows beside ours, and the curves of runs while they train.

import * as api from "./api";
import { Chart, type Line, short } from "./chart";
import { byId, make } from "./dom";
import type { State } from "./state";

/** How often a folder is looked at, in milliseconds. */
const INTERVAL = 3000;

/** Curves that are shown where nobody chose. */
const FEW = 4;

const talk = byId("runs-talk");
const content = byId("runs-content");
const set = byId<HTMLSelectElement>("set");
const retrieval = byId("retrieval");
const captions = byId("captions-table");
const list = byId("runs");
const charts = byId("charts");

let change: (change: Partial<State>) => void = () => undefined;
let can: api.Status | null = null;
let state: State | null = null;
let found: api.Runs | null = null;
let timer = 0;
/** What is known of runs, and of which step it is. */
const curves = new Map<string, { at: string; run: api.Curves }>();
const drawn = new Map<string, Chart>();

export function begin(given: (change: Partial<State>) => void, status: api.Status): void {
  [change, can] = [given, status];
  set.addEventListener("change", () => change({ set: set.value }));
}

export function update(given: State): void {
  state = given;
  set.value = given.set;
  clearTimeout(timer);
  if (given.tab !== "evaluation") return;
  if (!can?.runs) {
    content.hidden = true;
    talk.textContent = "Start the server with --runs and a folder of runs to see them here, while they train too.";
    return;
  }
  void look();
}

/** Looks at the folder, draws, and comes again. */
async function look(): Promise<void> {
  clearTimeout(timer);
  try {
    if (!document.hidden) {
      found = await api.runs();
      if (state?.tab !== "evaluation") return;
      content.hidden = false;
      const training = found.runs.filter((run) => run.training).length;
      talk.textContent = `${found.folder}: ${found.runs.length} runs${training ? `, ${training} training` : ""}.`;
      await Promise.all(chosen().map(fetchCurves));
      draw();
    }
  } catch (error) {
    talk.textContent = error instanceof Error ? error.message : String(error);
  }
  if (state?.tab === "evaluation") {
    clearTimeout(timer);
    timer = window.setTimeout(() => void look(), INTERVAL);
  }
}

/** Runs whose curves are shown: those that were chosen, else those that train, else the first few. */
function chosen(): api.Run[] {
  const runs = found?.runs ?? [];
  const names = new Set((state?.runs ?? "").split(",").filter(Boolean));
  if (names.size) return runs.filter((run) => names.has(run.name));
  const training = runs.filter((run) => run.training);
  return training.length ? training : runs.slice(0, FEW);
}

async function fetchCurves(run: api.Run): Promise<void> {
  const at = `${run.step} ${run.epoch}`;
  if (curves.get(run.name)?.at !== at) curves.set(run.name, { at, run: await api.run(run.name) });
}

/** A run keeps its colour while the folder stays as it is; after eight they come again, dashed. */
function colourOf(name: string): string {
  const at = found?.runs.findIndex((run) => run.name === name) ?? 0;
  return `c${at % 8}${at % 16 >= 8 ? " dashed" : ""}`;
}

function draw(): void {
  if (!found) return;
  const own = (row: api.Row): boolean => row.set === null || row.set === set.value;
  fill(retrieval, "Photos and sentences, recall in percent", found.retrieval, own);
  fill(captions, "Captions of photos, times 100", found.captions, own);
  drawRuns();
  drawCharts();
}

const sources = { paper: "test split", evaluation: "eval", validation: "validation, best pass" };

function fill(holder: HTMLElement, title: string, table: api.Table, own: (row: api.Row) => boolean): void {
  const rows = table.rows.filter(own);
  const best = table.columns.map((_, c) => Math.max(...rows.map((row) => row.values[c] ?? -Infinity)));
  const cell = (row: api.Row, c: number): HTMLElement => {
    const value = row.values[c];
    if (value === null || value === undefined) return make("td", {}, "–");
    const text = value.toFixed(1);
    const deviation = row.deviations?.[c];
    const parts = [value === best[c] ? make("b", {}, text) : text];
    if (deviation !== undefined) parts.push(make("small", {}, ` ± ${deviation.toFixed(1)}`));
    return make("td", {}, ...parts);
  };
  const head = ["", "from", ...table.columns].map((name) => make("th", { scope: "col" }, name));
  const body = rows.map((row) => {
    const name = row.runs > 1 ? `${row.name} (${row.runs} runs)` : row.name;
    return make(
      "tr",
      { class: row.source },
      make("th", { scope: "row" }, name),
      make("td", {}, sources[row.source]),
      ...table.columns.map((_, c) => cell(row, c)),
    );
  });
  put(holder, make("table", {}, make("caption", {}, title), make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body)));
}

/** Replaces a table where it changed, so that what was selected in it stays selected. */
function put(holder: HTMLElement, table: HTMLElement): void {
  if (holder.firstElementChild?.outerHTML !== table.outerHTML) holder.replaceChildren(table);
}

function duration(seconds: number): string {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.round(seconds)} s`;
}

function validation(best: api.Validation | null): string {
  const parts = [];
  if (best?.rsum !== undefined) parts.push(`rsum ${best.rsum.toFixed(1)}`);
  if (best?.greedy_cider !== undefined) parts.push(`CIDEr ${(100 * best.greedy_cider).toFixed(1)}`);
  if (best?.perplexity !== undefined) parts.push(`perplexity ${best.perplexity.toFixed(1)}`);
  return parts.join(", ") || "–";
}

function status(run: api.Run): string {
  if (run.training) return "training";
  return run.epochs !== null && run.epoch >= run.epochs ? "done" : "stopped";
}

function drawRuns(): void {
  const runs = found?.runs ?? [];
  const shown = new Set(chosen().map((run) => run.name));
  const head = ["run", "what", "pass", "steps", "loss", "validation", "time", "state"];
  const rows = runs.map((run) => {
    const box = make("input", { type: "checkbox", "data-run": run.name, ...(shown.has(run.name) ? { checked: "" } : {}) });
    const label = make("label", {}, box, make("span", { class: `swatch ${colourOf(run.name)}` }), run.name);
    const cells = [
      run.about,
      run.epochs === null ? String(run.epoch) : `${run.epoch} of ${run.epochs}`,
      run.step.toLocaleString("en"),
      run.loss === null ? "–" : short(run.loss),
      validation(run.best),
      duration(run.seconds),
      status(run),
    ];
    return make("tr", {}, make("th", { scope: "row" }, label), ...cells.map((text) => make("td", {}, text)));
  });
  const table = make(
    "table",
    {},
    make("caption", {}, "Runs; tick those whose curves are shown"),
    make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...rows),
  );
  const focused = list.contains(document.activeElement) ? (document.activeElement as HTMLElement).dataset["run"] : undefined;
  put(list, table);
  for (const box of list.querySelectorAll<HTMLInputElement>("input")) {
    box.checked = shown.has(box.dataset["run"] ?? "");
    box.onchange = choose;
    if (box.dataset["run"] === focused) box.focus();
  }
}

function choose(): void {
  const boxes = [...list.querySelectorAll<HTMLInputElement>("input:checked")];
  change({ runs: boxes.map((box) => box.dataset["run"]).join(",") });
}

type Pass = api.Curves["passes"][number];

function drawCharts(): void {
  const shown = chosen().flatMap((run) => curves.get(run.name)?.run ?? []);
  const lines = (of: api.Curves[], points: (run: api.Curves) => [number, number | null | undefined][]): Line[] =>
    of.map((run) => ({
      name: run.name,
      colour: colourOf(run.name),
      points: points(run).filter((point): point is [number, number] => typeof point[1] === "number"),
    }));
  const passes = (of: api.Curves[], value: (pass: Pass) => number | null | undefined): Line[] =>
    lines(of, (run) => run.passes.map((pass) => [pass.epoch, value(pass)]));
  const wanted: [string, Parameters<Chart["update"]>][] = [];
  // What minimises different things is drawn apart: their losses have nothing in common.
  const isReward = (run: api.Curves): boolean => run.about.includes("self critical");
  const groups = [
    { name: "alignment", of: shown.filter((run) => run.kind === "alignment") },
    { name: "captions", of: shown.filter((run) => run.kind !== "alignment" && !isReward(run)) },
    { name: "captions, self-critical", of: shown.filter((run) => run.kind !== "alignment" && isReward(run)) },
  ];
  const paper = found?.retrieval.rows.filter((row) => row.source === "paper" && row.set === set.value).at(-1);
  const rsum = paper?.values.at(-1);
  for (const { name, of } of groups) {
    const more = name.endsWith("self-critical") ? ", self-critical" : "";
    const loss = lines(of, (run) => run.steps.map((step) => [step.step, step.loss]));
    const marks = paper && typeof rsum === "number" ? [{ name: paper.name, y: rsum }] : [];
    wanted.push(
      [`${name} loss`, [{ title: `Loss, ${name}`, x: "step", y: "loss" }, loss]],
      [`${name} rsum`, [{ title: "Sum of recalls on validation", x: "pass", y: "rsum", marks }, passes(of, (p) => p.validation?.rsum)]],
      [
        `${name} cider`,
        [
          { title: `CIDEr of greedy captions on validation${more}`, x: "pass", y: "CIDEr" },
          passes(of, (p) => (p.validation?.greedy_cider === undefined ? null : 100 * p.validation.greedy_cider)),
        ],
      ],
      [
        `${name} perplexity`,
        [{ title: `Perplexity of captions on validation${more}`, x: "pass", y: "perplexity" }, passes(of, (p) => p.validation?.perplexity)],
      ],
    );
  }
  const rate = lines(shown, (run) => run.steps.map((step) => [step.step, step.learning_rate]));
  wanted.push(["rate", [{ title: "Learning rate", x: "step", y: "rate" }, rate]]);
  for (const [key, given] of wanted) {
    let own = drawn.get(key);
    if (!own) {
      drawn.set(key, (own = new Chart()));
      charts.append(own.element);
    }
    own.update(...given);
  }
}
