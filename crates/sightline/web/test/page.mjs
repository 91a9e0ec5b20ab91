// The page in a real browser: ask, open, check every line's end, choose, drop, share, rank sentences, look through the
// camera, read curves while they grow; keyboard, phone, light and dark, accessibility.
//
//   sightline serve --index INDEX --caption-model RUN --runs RUNS --port 8642 &
//   node test/page.mjs http://127.0.0.1:8642 [--shots FOLDER] [--picture FILE] [--runs RUNS] [--query WORDS]
//
// The query must be of words that the index's model knows. In RUNS a run is made and taken away again, to see its curve
// grow; without it that is left out. Needs Chromium: named by CHROMIUM, or found as `chromium`. test/run.sh does it all.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const { values, positionals: [address] } = parseArgs({
  allowPositionals: true,
  options: Object.fromEntries(["shots", "picture", "runs", "query"].map((name) => [name, { type: "string" }])),
});
const { shots, picture: dropped, runs, query = "a dog runs on the grass" } = values;
assert(address, "name the server's address");
const executablePath = process.env.CHROMIUM ?? execFileSync("which", ["chromium"]).toString().trim();
// Chromium's own moving picture takes the place of a camera.
const camera = ["--use-fake-device-for-media-stream"];
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", ...camera] });
const can = await (await fetch(`${address}/api/v1/status`)).json();
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

async function begin(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(address) && !/^(data|blob):/.test(url)) wrong.push(`asked for ${url}`);
  });
  return { page, wrong };
}

const shot = async (page, name) => shots && page.screenshot({ path: join(shots, `${name}.png`) });

/** Serious findings of axe-core; the script is run by the debugger, which no content policy forbids. */
async function findings(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run());
  return violations.filter((found) => ["serious", "critical"].includes(found.impact))
    .map((found) => `${found.id}: ${found.nodes.map((node) => node.html).slice(0, 3).join(" ")}`);
}

/** The largest distance between a line's end and its box's centre, in pixels. */
const furthest = (page) => page.evaluate(() => {
  const scene = document.querySelector("#scene").getBoundingClientRect();
  const lines = [...document.querySelectorAll("#lines line.line")];
  const distances = lines.map((line) => {
    const box = document.querySelector(`.box[data-region="${line.dataset.region}"]`).getBoundingClientRect();
    const [x, y] = [Number(line.getAttribute("x2")) + scene.left, Number(line.getAttribute("y2")) + scene.top];
    return Math.hypot(x - (box.left + box.width / 2), y - (box.top + box.height / 2));
  });
  return { n: lines.length, most: Math.max(...distances) };
});

/** Waits for the answer to what is asked. */
const answered = (page) => page.waitForFunction(() =>
  document.querySelector("#grid").getAttribute("aria-busy") === "false" && document.querySelectorAll("#grid li").length > 3);

const { page, wrong } = await begin();
await page.goto(address);
await page.locator("#q").fill(query);
await page.locator("#grid img").first().waitFor();
await page.waitForLoadState("networkidle");
assert.match(await page.locator("#talk").textContent(), /of \d+ photos/);
assert.equal(new URL(page.url()).searchParams.get("q"), query);
assert((await page.locator("#grid li").count()) > 3);
assert(await page.locator("#grid img").first().getAttribute("alt"));
assert.deepEqual(await findings(page), []);
await shot(page, "grid-light");

await page.locator("#grid a").first().click();
await page.locator("#lines line").first().waitFor();
await page.waitForLoadState("networkidle");
let { n, most } = await furthest(page);
assert(n > 0 && most < 2, `${n} lines, the furthest ${most} px from its box`);
assert.deepEqual(await findings(page), []);
await shot(page, "view-light");
const shared = page.url();
assert.match(shared, /photo=\d+/);

// Word and box light up together, both ways.
const word = page.locator(".word:not(.unmatched)").first();
const region = await word.getAttribute("data-region");
await word.hover();
assert(await page.locator(`.box[data-region="${region}"].lit`).count());
await page.mouse.move(2, 2);
assert.equal(await page.locator(".lit").count(), 0);
await page.locator(`.box[data-region="${region}"]`).focus();
assert(await page.locator(`.word[data-region="${region}"].lit`).count());

// The slider ends where all words lie on one region.
const before = await page.locator(".word").count();
assert(before > 1, `${before} words`);
const end = await page.locator("#affinity").getAttribute("max");
await page.locator("#affinity").fill(end);
await page.waitForFunction(() => document.querySelectorAll(".word").length === 1);
assert.equal(new URL(page.url()).searchParams.get("affinity"), end);
assert.equal(await page.locator("#affinity").getAttribute("max"), end);
({ most } = await furthest(page));
assert(!(most >= 2), `${most} px`);
await page.locator("#affinity").fill("0");

// A region is chosen and searched by.
await page.locator("#all-regions").check();
await page.locator(".box").last().click();
await page.locator("#more-region").click();
await page.waitForFunction(() => /box=/.test(location.search));
await answered(page);
await shot(page, "by-region");
assert(await page.locator("#chip").isVisible());

// A shared address shows the same; back and forth by keyboard alone.
const other = await begin({ colorScheme: "dark" });
await other.page.goto(shared);
await other.page.locator("#lines line").first().waitFor();
await other.page.waitForLoadState("networkidle");
assert.deepEqual(await findings(other.page), []);
await shot(other.page, "view-dark");
await other.page.keyboard.press("ArrowRight");
await other.page.waitForFunction((shared) => location.href !== shared, shared);
await other.page.keyboard.press("Escape");
await other.page.waitForFunction(() => !document.querySelector("#view").open);
assert.equal(await other.page.evaluate(() => document.activeElement.tagName), "A");
await other.page.keyboard.press("ArrowRight");
await other.page.keyboard.press("Enter");
await other.page.waitForFunction(() => document.querySelector("#view").open);
await other.page.keyboard.press("Escape");
await other.page.keyboard.press("/");
assert.equal(await other.page.evaluate(() => document.activeElement.id), "q");
await shot(other.page, "grid-dark");

// The keys step through photos while one is described, after it, and after a word was chosen. It is asked for once.
if (can.captions) {
  const step = async () => {
    const from = await page.locator("#facts").textContent();
    await page.keyboard.press("ArrowRight");
    await page.waitForFunction((from) => document.querySelector("#facts").textContent !== from, from);
  };
  const inDialog = () => page.evaluate(() => document.querySelector("#view").contains(document.activeElement));
  await page.goto(shared);
  await page.locator("#lines line").first().waitFor();
  await answered(page);
  let asked = 0;
  let release;
  const released = new Promise((resolve) => { release = resolve; });
  await page.route("**/api/v1/caption?*", async (route) => {
    asked += 1;
    await released;
    await route.continue();
  });
  await page.locator("#describe").click();
  assert(await inDialog(), "the focus left the dialog");
  await page.locator("#describe").click({ force: true });
  await page.keyboard.press("Enter");
  release();
  await page.waitForFunction(() => !/^(describing…)?$/.test(document.querySelector("#captions").textContent));
  assert.equal(asked, 1);
  assert(await inDialog(), "the focus left the dialog");
  await step();
  await step();
  await page.locator("#describe").click();
  await step();
  await page.locator(".word").first().click();
  await step();
  await step();
  await page.unroute("**/api/v1/caption?*");
}

/** Drops a picture on the page. */
async function drop(page) {
  const bytes = readFileSync(dropped).toString("base64");
  const transfer = await page.evaluateHandle((bytes) => {
    const transfer = new DataTransfer();
    const content = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0));
    transfer.items.add(new File([content], "dropped.jpg", { type: "image/jpeg" }));
    return transfer;
  }, bytes);
  await page.dispatchEvent("body", "drop", { dataTransfer: transfer });
}

if (dropped) {
  await page.goto(address);
  await drop(page);
  await answered(page);
  assert.match(await page.locator("#chip").textContent(), /dropped/);
  await page.waitForLoadState("networkidle");
  await shot(page, "dropped");

  // Back from a picture to what the address says, forth to the picture; a photo opened in between changes neither.
  const shown = () => page.locator("#grid img").evaluateAll((images) => images.map((image) => image.src));
  await page.goto(`${address}/?${new URLSearchParams({ q: query })}`);
  await answered(page);
  const found = await shown();
  await drop(page);
  await page.locator("#chip").waitFor();
  await answered(page);
  const alike = await shown();
  assert.notDeepEqual(alike, found);
  await page.locator("#grid a").first().click();
  await page.waitForFunction(() => document.querySelector("#view").open);
  await page.goBack();
  await page.waitForFunction(() => !document.querySelector("#view").open);
  assert.deepEqual(await shown(), alike);
  await page.goBack();
  await page.locator("#chip").waitFor({ state: "hidden" });
  await answered(page);
  assert.deepEqual(await shown(), found);
  await page.goForward();
  await page.locator("#chip").waitFor();
  await answered(page);
  assert.deepEqual(await shown(), alike);
  await page.reload();
  await answered(page);
  assert(!(await page.locator("#chip").isVisible()));
  assert.deepEqual(await shown(), found);
}

// A phone.
const phone = await begin({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 });
await phone.page.goto(shared);
await phone.page.locator("#lines line").first().waitFor();
await phone.page.waitForLoadState("networkidle");
({ n, most } = await furthest(phone.page));
assert(n > 0 && most < 2, `phone: ${most} px`);
const wide = await phone.page.evaluate(() => document.documentElement.scrollWidth);
assert(wide <= 390, `the page is ${wide} px wide on a phone`);
await shot(phone.page, "view-phone");
await phone.page.locator("#close").click();
await shot(phone.page, "grid-phone");

// Sentences for a photo: from its view, typed, chosen by keyboard, shared, on a phone, for a dropped picture.
const said = await begin();
await said.page.goto(shared);
await said.page.locator("#lines line").first().waitFor();
await said.page.locator("#to-sentences").click();
await said.page.waitForFunction(() => /tab=sentences/.test(location.search));
assert.equal(await said.page.locator("#tabs a[aria-current]").textContent(), "Sentences");
const lines = [query, query.split(" ").slice(0, 2).join(" "), "zyzzyva", `${query.split(" ").reverse().join(" ")}`];
await said.page.locator("#sentences").fill(lines.join("\n"));
await said.page.locator("#ranking li").nth(2).waitFor();
await said.page.waitForLoadState("networkidle");
assert.equal(await said.page.locator("#ranking li").count(), 3);
assert.match(await said.page.locator("#sentences-talk").textContent(), /3 sentences.* 1 without/);
const scores = (await said.page.locator("#ranking small").allTextContents()).map(Number);
assert.deepEqual(scores, [...scores].sort((a, b) => b - a));
assert.equal(await said.page.locator('#ranking [aria-pressed="true"]').count(), 1);
const ends = (page) => page.evaluate(() => {
  const scene = document.querySelector("#match").getBoundingClientRect();
  return [...document.querySelectorAll("#match line.line")].map((line) => {
    const box = document.querySelector(`#match .box[data-region="${line.dataset.region}"]`).getBoundingClientRect();
    const [x, y] = [Number(line.getAttribute("x2")) + scene.left, Number(line.getAttribute("y2")) + scene.top];
    return Math.hypot(x - (box.left + box.width / 2), y - (box.top + box.height / 2));
  });
});
const far = await ends(said.page);
assert(far.every((distance) => distance < 2), `${far}`);
assert.deepEqual(await findings(said.page), []);
await shot(said.page, "sentences-light");
await said.page.locator("#ranking button").first().focus();
await said.page.keyboard.press("ArrowDown");
await said.page.waitForFunction(() => /sentence=\d/.test(location.search));
assert.equal(await said.page.locator("#ranking button").nth(1).getAttribute("aria-pressed"), "true");
assert(await said.page.locator("#match img").getAttribute("alt"));
const sharedSentences = said.page.url();
const saidDark = await begin({ colorScheme: "dark", viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 });
await saidDark.page.goto(sharedSentences);
await saidDark.page.locator("#ranking li").nth(2).waitFor();
await saidDark.page.waitForLoadState("networkidle");
assert.equal(await saidDark.page.locator("#ranking button").nth(1).getAttribute("aria-pressed"), "true");
assert((await saidDark.page.evaluate(() => document.documentElement.scrollWidth)) <= 390, "the sentences are too wide");
assert.deepEqual(await findings(saidDark.page), []);
await shot(saidDark.page, "sentences-phone-dark");
// Of more sentences than are listed it is said.
await said.page.locator("#sentences").fill(Array.from({ length: 130 }, (_, at) => `${query} ${at}`).join("\n"));
await said.page.locator("#ranking li").nth(99).waitFor();
assert.equal(await said.page.locator("#ranking li").count(), 100);
assert.match(await said.page.locator("#sentences-talk").textContent(), /^The best 100 of 130 sentences\./);
if (dropped) {
  await drop(said.page);
  await said.page.waitForFunction(() => !/[?&]of=/.test(location.search) && document.querySelector("#match img").src.startsWith("blob:"));
  await said.page.locator("#ranking li").nth(2).waitFor();
  // Back to the photo of the index, forth to the picture.
  const isPicture = (of) => of === document.querySelector("#match img").src.startsWith("blob:");
  await said.page.goBack();
  await said.page.waitForFunction(isPicture, false);
  await said.page.goForward();
  await said.page.waitForFunction(isPicture, true);
}
await said.page.goBack();

// The camera: described live, stopped, and refused in one line.
const seen = await begin({ permissions: ["camera"] });
await seen.page.goto(`${address}/?tab=camera`);
if (can.captions) {
  await seen.page.locator("#camera-button").click();
  await seen.page.waitForFunction(() => document.querySelector("#camera-caption").textContent !== "", null, { timeout: 60_000 });
  assert.match(await seen.page.locator("#camera-talk").textContent(), /\d+ ms a frame/);
  assert(await seen.page.locator("#camera-history li").count());
  let flying = 0;
  let most = 0;
  seen.page.on("request", (request) => { if (/caption/.test(request.url())) most = Math.max(most, ++flying); });
  for (const end of ["requestfinished", "requestfailed"]) {
    seen.page.on(end, (request) => { if (/caption/.test(request.url())) flying -= 1; });
  }
  await seen.page.waitForTimeout(2000);
  assert(most <= 1, `${most} requests at once`);
  assert.deepEqual(await findings(seen.page), []);
  await shot(seen.page, "camera-light");
  await seen.page.locator("#camera-button").click();
  await seen.page.waitForFunction(() => document.querySelector("#camera").srcObject === null);
  assert.equal(await seen.page.locator("#camera-talk").textContent(), "Stopped.");
} else {
  assert.match(await seen.page.locator("#camera-talk").textContent(), /--caption-model/);
}
const refused = await begin();
await refused.page.goto(`${address}/?tab=camera`);
if (can.captions) {
  await refused.page.locator("#camera-button").click();
  await refused.page.waitForFunction(() => /not allowed/.test(document.querySelector("#camera-talk").textContent));
  assert.equal(await refused.page.locator("#camera-button").textContent(), "Start");
}

// Evaluation: tables, the paper's rows, curves that grow while a run trains, read by pointer and keys.
const tables = await begin({ viewport: { width: 1280, height: 1400 } });
await tables.page.goto(`${address}/?tab=evaluation`);
if (can.runs) {
  await tables.page.locator("#runs tbody tr").first().waitFor();
  await tables.page.locator("#charts figure:visible").first().waitFor();
  await tables.page.waitForLoadState("networkidle");
  assert.match(await tables.page.locator("#retrieval").textContent(), /the paper, BRNN.*16\.5/);
  await tables.page.locator("#set").selectOption("coco");
  await tables.page.waitForFunction(() => /set=coco/.test(location.search));
  await tables.page.waitForFunction(() => /38\.4/.test(document.querySelector("#retrieval").textContent));
  await tables.page.locator("#set").selectOption("flickr8k");
  const chart = tables.page.locator("#charts figure:visible").first();
  const label = () => chart.locator("svg").getAttribute("aria-label");
  const last = await label();
  await chart.locator("svg").focus();
  await tables.page.keyboard.press("Home");
  assert.notEqual(await label(), last);
  assert.equal(await chart.locator(".cursor").count(), 1);
  await chart.locator("svg").hover({ position: { x: 300, y: 100 } });
  assert(await chart.locator(".readout b").first().textContent());
  assert.deepEqual(await findings(tables.page), []);
  await shot(tables.page, "evaluation-light");
  const first = tables.page.locator("#runs input").first();
  await first.focus();
  await tables.page.keyboard.press("Space");
  await tables.page.waitForFunction(() => /runs=/.test(location.search));
  const dark = await begin({ colorScheme: "dark", viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 });
  await dark.page.goto(tables.page.url());
  await dark.page.locator("#charts figure:visible").first().waitFor();
  await dark.page.waitForLoadState("networkidle");
  const width = await dark.page.evaluate(() => document.documentElement.scrollWidth);
  assert(width <= 390, `the evaluation is ${width} px wide on a phone`);
  assert.deepEqual(await findings(dark.page), []);
  await shot(dark.page, "evaluation-phone-dark");
  tables.wrong.push(...dark.wrong);
}
if (can.runs && runs) {
  const own = join(runs, "live-test");
  mkdirSync(own);
  try {
    const step = (at) => `{"learning_rate":0.001,"loss":${(4 / at).toFixed(3)},"step":${20 * at}}\n`;
    writeFileSync(join(own, "settings.toml"), 'epochs = 9\n[model]\nscore = "mean_of_max"\nobjective = "contrastive"\n');
    // The second line is half written.
    writeFileSync(join(own, "log.jsonl"), step(1) + step(2).slice(0, 30));
    await tables.page.goto(`${address}/?tab=evaluation&runs=live-test`);
    await tables.page.locator('#charts figure:visible svg[aria-label*="at step 20"]').first().waitFor();
    assert.match(await tables.page.locator("#runs tr", { hasText: "live-test" }).textContent(), /training/);
    appendFileSync(join(own, "log.jsonl"), step(2).slice(30) + step(3));
    await tables.page.locator('#charts figure:visible svg[aria-label*="at step 60"]').first().waitFor({ timeout: 15_000 });
  } finally {
    rmSync(own, { recursive: true });
  }
}

// The API's page, from the document.
const document_ = await begin();
await document_.page.goto(`${address}/api`);
await document_.page.locator("#Answer").waitFor();
assert.match(await document_.page.locator("main").textContent(), /POST\s*\/api\/v1\/sentences/);
assert.equal(await document_.page.evaluate(() =>
  [...document.querySelectorAll('main a[href^="#"]')].filter((a) => !document.getElementById(a.hash.slice(1))).length), 0);
assert.deepEqual(await findings(document_.page), []);
await shot(document_.page, "api-light");

assert.deepEqual(
  [page, other, phone, said, saidDark, seen, refused, tables, document_].flatMap((own) => own.wrong ?? wrong), []);
await browser.close();
console.log("the page works");
