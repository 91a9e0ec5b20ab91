// What is asked and what is open: all of it stands in the address, so that it can be shared and gone back to.

export const tabs = ["photos", "sentences", "camera", "evaluation"] as const;
export type Tab = (typeof tabs)[number];

export interface State {
  tab: Tab;
  q: string;
  not: string;
  folder: string;
  from: string;
  until: string;
  /** A photo of the index to find more of, and its part. */
  like: number | null;
  box: string;
  /** The photo that is open. */
  photo: number | null;
  affinity: number;
  /** The photo that sentences are compared with, and the sentence whose words are shown. */
  of: number | null;
  sentence: number | null;
  sentences: string;
  /** Whether the camera's regions are described too. */
  regions: boolean;
  /** The collection whose rows of the paper are shown; the runs whose curves are, none for those that train. */
  set: string;
  runs: string;
}

const texts = ["q", "not", "folder", "from", "until", "box"] as const;
const numbers = ["like", "photo", "of", "sentence"] as const;
export const plainSet = "flickr8k";

export function read(address: string): State {
  const url = new URL(address);
  const given = url.searchParams;
  const number = (name: string): number | null => {
    const text = given.get(name);
    const value = Number(text);
    return text !== null && text !== "" && Number.isFinite(value) ? value : null;
  };
  const text = (name: string): string => given.get(name) ?? "";
  return {
    tab: tabs.find((tab) => tab === given.get("tab")) ?? "photos",
    q: text("q"),
    not: text("not"),
    folder: text("folder"),
    from: text("from"),
    until: text("until"),
    box: text("box"),
    like: number("like"),
    photo: number("photo"),
    affinity: Math.max(0, number("affinity") ?? 0),
    of: number("of"),
    sentence: number("sentence"),
    sentences: new URLSearchParams(url.hash.slice(1)).get("sentences") ?? "",
    regions: given.has("regions"),
    set: text("set") || plainSet,
    runs: text("runs"),
  };
}

export function write(state: State): string {
  const given = new URLSearchParams();
  if (state.tab !== "photos") given.set("tab", state.tab);
  for (const name of texts) if (state[name].trim()) given.set(name, state[name].trim());
  for (const name of numbers) if (state[name] !== null) given.set(name, String(state[name]));
  if (state.affinity > 0) given.set("affinity", String(state.affinity));
  if (state.regions) given.set("regions", "");
  if (state.set !== plainSet) given.set("set", state.set);
  if (state.runs) given.set("runs", state.runs);
  const text = given.toString();
  // A thousand sentences would be too long an address for a server, which is never sent what stands behind the #.
  const hash = state.sentences.trim() ? `#${new URLSearchParams({ sentences: state.sentences })}` : "";
  return (text ? `?${text}` : "/") + hash;
}

/** The part of the state that the server is asked with for photos. */
export function question(state: State): URLSearchParams {
  const given = new URLSearchParams();
  for (const name of texts) if (state[name].trim()) given.set(name, state[name].trim());
  if (state.like !== null) given.set("like", String(state.like));
  return given;
}
