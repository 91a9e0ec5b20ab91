// Searches of a running server from several clients at once: rate, times, answers by status.
//
//   sightline serve --index INDEX --port 8642 &
//   node benches/serve_load.mjs http://127.0.0.1:8642 [seconds 20] [clients 8]
//
// Every client asks again as soon as it is answered. The server's memory is read from its own /metrics.

import http from "node:http";

const [address, seconds = "20", clients = "8"] = process.argv.slice(2);
const queries = ["a dog runs on the grass", "two people on a beach", "a man in a red shirt", "children play in the snow"];
const agent = new http.Agent({ keepAlive: true, maxSockets: Number(clients) });

const get = (path) => new Promise((resolve, reject) => {
  http.get(`${address}${path}`, { agent }, (response) => {
    const parts = [];
    response.on("data", (part) => parts.push(part));
    response.on("end", () => resolve({ status: response.statusCode, body: Buffer.concat(parts).toString() }));
  }).on("error", reject);
});

const memory = async () => {
  const bytes = (await get("/metrics")).body.match(/^process_resident_memory_bytes (\d+)/m)?.[1];
  return bytes ? `${(Number(bytes) / 1e6).toFixed(0)} MB` : "not told";
};

const times = [];
const statuses = {};
const before = await memory();
const end = performance.now() + 1000 * Number(seconds);
const start = performance.now();
await Promise.all(Array.from({ length: Number(clients) }, async (_, client) => {
  for (let i = client; performance.now() < end; i++) {
    const asked = performance.now();
    const { status } = await get(`/api/v1/search?n=40&q=${encodeURIComponent(queries[i % queries.length])}`);
    statuses[status] = (statuses[status] ?? 0) + 1;
    if (status === 200) times.push(performance.now() - asked);
  }
}));
const took = (performance.now() - start) / 1000;
times.sort((a, b) => a - b);
const at = (share) => times[Math.min(times.length - 1, Math.floor(share * times.length))]?.toFixed(1);
console.log(JSON.stringify({
  clients: Number(clients), seconds: took.toFixed(1), searches_a_second: (times.length / took).toFixed(1),
  ms: { p50: at(0.5), p90: at(0.9), p99: at(0.99), most: at(1) }, statuses, memory: { before, after: await memory() },
}));
agent.destroy();
