// The API's document (/api/v1/openapi.json) for people: every address with what it takes and gives.

import { byId, make } from "./dom";

interface Schema {
  $ref?: string;
  type?: string | string[];
  format?: string;
  description?: string;
  items?: Schema;
  properties?: { [name: string]: Schema };
  required?: string[];
  enum?: unknown[];
  oneOf?: Schema[];
  allOf?: Schema[];
}

interface Content {
  [kind: string]: { schema?: Schema };
}

interface Operation {
  summary?: string;
  description?: string;
  parameters?: { name: string; in: string; required?: boolean; description?: string; schema?: Schema }[];
  requestBody?: { content: Content };
  responses: { [status: string]: { description?: string; content?: Content } };
}

interface Description {
  info: { title: string; version: string; description?: string };
  paths: { [path: string]: { [method: string]: Operation } };
  components?: { schemas?: { [name: string]: Schema } };
}

const meanings: { [status: string]: string } = {
  200: "the answer",
  400: "the question is not as expected",
  404: "there is no such thing",
  408: "it took too long to arrive",
  410: "the photo is no longer where it was",
  413: "too large",
  415: "of another type than expected",
  422: "understood, but it cannot be answered",
  501: "this server was started without what that needs",
  503: "too many requests at once; come again after Retry-After",
};

/** A schema in a line, with links to those that have a name. */
function type(schema: Schema | undefined): (Node | string)[] {
  if (!schema) return ["anything"];
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop() ?? "";
    return [make("a", { href: `#${name}` }, name)];
  }
  const either = schema.oneOf ?? schema.allOf;
  if (either) return either.flatMap((own, at) => (at ? [" or ", ...type(own)] : type(own)));
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" | ")];
  const kinds = [schema.type ?? "anything"].flat();
  return kinds.flatMap((kind, at) => {
    const own = kind === "array" ? ["list of ", ...type(schema.items)] : [kind === "null" ? "none" : kind];
    return at ? [" or ", ...own] : own;
  });
}

function table(head: string[], rows: HTMLElement[]): HTMLElement {
  const cells = head.map((name) => make("th", { scope: "col" }, name));
  const whole = make("table", {}, make("thead", {}, make("tr", {}, ...cells)), make("tbody", {}, ...rows));
  return make("div", { class: "wide", role: "region", "aria-label": head.join(", "), tabindex: "0" }, whole);
}

const row = (name: string, ...cells: (Node | string)[][]): HTMLElement =>
  make("tr", {}, make("th", { scope: "row" }, make("code", {}, name)), ...cells.map((cell) => make("td", {}, ...cell)));

function operation(path: string, method: string, own: Operation): HTMLElement {
  const id = `${method}${path.replace(/[^a-z0-9]+/gi, "-")}`;
  const parts: Node[] = [make("h2", { id }, make("b", {}, method.toUpperCase()), " ", make("code", {}, path))];
  const text = [own.summary, own.description].filter(Boolean).join(". ");
  if (text) parts.push(make("p", {}, text));
  if (own.parameters?.length) {
    const rows = own.parameters.map((given) =>
      row(given.name, [given.in + (given.required ? ", needed" : "")], type(given.schema), [given.description ?? ""]),
    );
    parts.push(make("h3", {}, "Takes"), table(["name", "where", "type", "meaning"], rows));
  }
  for (const [kind, { schema }] of Object.entries(own.requestBody?.content ?? {})) {
    const shown = kind.startsWith("image/") ? ["a picture's file"] : type(schema);
    parts.push(make("p", {}, "Body: ", make("code", {}, kind), ", ", ...shown));
  }
  const rows = Object.entries(own.responses).map(([status, { description, content }]) => {
    const given = Object.entries(content ?? {}).flatMap(([kind, { schema }]) =>
      kind.startsWith("image/") ? [kind] : type(schema),
    );
    return row(status, given, [description || (meanings[status] ?? "")]);
  });
  parts.push(make("h3", {}, "Gives"), table(["status", "type", "meaning"], rows));
  return make("section", { "aria-labelledby": id }, ...parts);
}

function schema(name: string, own: Schema): HTMLElement {
  const parts: Node[] = [make("h2", { id: name }, make("code", {}, name))];
  if (own.description) parts.push(make("p", {}, own.description));
  // A record may take in another one whole.
  const taken = (own.allOf ?? []).filter((part) => part.$ref).flatMap(type);
  if (taken.length) parts.push(make("p", {}, "Everything of ", ...taken, ", and:"));
  const rows = [own, ...(own.allOf ?? [])].flatMap((part) =>
    Object.entries(part.properties ?? {}).map(([field, schema]) =>
      row(field, type(schema), [part.required?.includes(field) ? "" : "may be left out"], [schema.description ?? ""]),
    ),
  );
  if (rows.length) parts.push(table(["field", "type", "", "meaning"], rows));
  else parts.push(make("p", {}, ...type(own)));
  return make("section", { "aria-labelledby": name }, ...parts);
}

async function main(): Promise<void> {
  const response = await fetch("/api/v1/openapi.json");
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  const own = (await response.json()) as Description;
  const operations = Object.entries(own.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, given]) => operation(path, method, given)),
  );
  const schemas = Object.entries(own.components?.schemas ?? {}).map(([name, given]) => schema(name, given));
  byId("document").replaceChildren(
    make(
      "p",
      {},
      `${own.info.title} ${own.info.version}: ${own.info.description ?? ""}. A refusal is JSON with one line in `,
      make("code", {}, "error"),
      ". For programs: ",
      make("a", { href: "/api/v1/openapi.json" }, "openapi.json"),
      ". Beside these, ",
      make("a", { href: "/health" }, "/health"),
      " and ",
      make("a", { href: "/metrics" }, "/metrics"),
      ".",
    ),
    ...operations,
    make("h2", { id: "records" }, "Records"),
    ...schemas,
  );
  // The part that the address names is there only now.
  document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

main().catch((error: unknown) => {
  byId("document-talk").textContent = error instanceof Error ? error.message : String(error);
});
