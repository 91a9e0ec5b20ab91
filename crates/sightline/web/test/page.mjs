// The page in a real browser: ask, open, check every line's end, choose, drop, share, keyboard, accessibility.
//
//   sightline serve --index INDEX --port 8642 &
//   node test/page.mjs http://127.0.0.1:8642 [folder for screenshots] [a picture to drop]
//
// Needs Chromium: named by CHROMIUM, or found as `chromium`.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [address, shots, dropped] = process.argv.slice(2);
assert(address, "name the server's address");
const executablePath = process.env.CHROMIUM ?? execFileSync("which", ["chromium"]).toString().trim();
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
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
await page.locator("#q").fill("a dog runs on the grass");
await page.locator("#grid img").first().waitFor();
await page.waitForLoadState("networkidle");
assert.match(await page.locator("#talk").textContent(), /of \d+ photos/);
assert.match(page.url(), /q=a\+dog/);
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

// A large affinity gathers all words on one region.
const before = await page.locator(".word").count();
await page.locator("#affinity").fill("3");
await page.waitForFunction((before) => document.querySelectorAll(".word").length < before, before);
assert.match(page.url(), /affinity=3/);
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

// A picture is dropped.
if (dropped) {
  const bytes = readFileSync(dropped).toString("base64");
  await page.goto(address);
  const transfer = await page.evaluateHandle((bytes) => {
    const transfer = new DataTransfer();
    const content = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0));
    transfer.items.add(new File([content], "dropped.jpg", { type: "image/jpeg" }));
    return transfer;
  }, bytes);
  await page.dispatchEvent("body", "drop", { dataTransfer: transfer });
  await answered(page);
  assert.match(await page.locator("#chip").textContent(), /dropped/);
  await page.waitForLoadState("networkidle");
  await shot(page, "dropped");
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

assert.deepEqual([...wrong, ...other.wrong, ...phone.wrong], []);
await browser.close();
console.log("the page works");
