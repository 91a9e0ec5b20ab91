// The server's records and how they are asked for; see /api.

export type Box = [number, number, number, number];

export interface Word {
  word: string;
  region: number;
  box: Box;
  score: number;
  matched: boolean;
}

export interface Hit {
  image: string;
  score: number;
  words: Word[];
  id: number;
  width: number;
  height: number;
  taken: string;
  duplicates?: string[];
}

export interface Answer {
  known: string[];
  unknown: string[];
  deviations: number | null;
  score_per_word: number | null;
  floor: number | null;
  answered: boolean;
  searched: number;
  hits: Hit[];
}

export interface Phrase {
  start: number;
  end: number;
  text: string;
  region: number;
  score: number;
}

export interface Regions {
  id: number;
  image: string;
  width: number;
  height: number;
  taken: string;
  boxes: Box[];
  unknown: string[];
  words: Word[];
  phrases: Phrase[];
  /** More gathers no more words: all lie on one region. */
  largest_affinity: number;
}

export interface Sentence {
  index: number;
  sentence: string;
  score: number;
  words: Word[];
  unknown: string[];
}

export interface Sentences {
  id: number | null;
  image: string;
  width: number;
  height: number;
  boxes: Box[];
  ranked: number;
  left_out: number[];
  sentences: Sentence[];
}

export interface Run {
  name: string;
  kind: "alignment" | "caption" | "unknown";
  about: string;
  epochs: number | null;
  epoch: number;
  step: number;
  loss: number | null;
  seconds: number;
  training: boolean;
  best: Validation | null;
}

/** What `train` measures after a pass; of an alignment model the first, of a caption model the others. */
export interface Validation {
  rsum?: number;
  greedy_cider?: number;
  perplexity?: number;
}

export interface Curves extends Run {
  settings: string;
  steps: { step: number; loss: number | null; learning_rate: number | null }[];
  passes: { epoch: number; step: number; loss: number | null; seconds: number; validation: Validation | null }[];
}

export interface Row {
  name: string;
  source: "paper" | "evaluation" | "validation";
  set: string | null;
  runs: number;
  values: (number | null)[];
  deviations: number[] | null;
}

export interface Table {
  columns: string[];
  rows: Row[];
}

export interface Runs {
  folder: string;
  runs: Run[];
  retrieval: Table;
  captions: Table;
}

export interface Description {
  captions: { text: string; log_probability: number }[];
  regions?: { box: Box; text: string; log_probability: number }[];
}

export interface Status {
  version: string;
  photos: number;
  folder: string;
  reads_photos: boolean;
  captions: boolean;
  region_captions: boolean;
  runs: boolean;
  cut_off: number;
}

/** An answer that is none: the server's one line, and its status. */
export class Refusal extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

async function ask<T>(path: string, options: RequestInit = {}): Promise<T> {
  const response = await fetch(`/api/v1/${path}`, options);
  const body: unknown = await response.json().catch(() => ({}));
  if (!response.ok) {
    const message = (body as { error?: string }).error;
    throw new Refusal(response.status, message ?? `the server answered ${response.status}`);
  }
  return body as T;
}

export const status = (): Promise<Status> => ask("status");

export const search = (query: URLSearchParams, signal: AbortSignal): Promise<Answer> =>
  ask(`search?${query}`, { signal });

const sent = (picture: Blob, signal: AbortSignal): RequestInit => ({
  method: "POST",
  body: picture,
  headers: { "content-type": picture.type || "application/octet-stream" },
  signal,
});

export const similar = (query: URLSearchParams, picture: Blob, signal: AbortSignal): Promise<Answer> =>
  ask(`similar?${query}`, sent(picture, signal));

export const regions = (id: number, q: string, affinity: number): Promise<Regions> =>
  ask(`regions/${id}?${new URLSearchParams({ q, affinity: String(affinity) })}`);

export const describe = (id: number, most: number): Promise<Description> =>
  ask(`caption?${new URLSearchParams({ id: String(id), regions: String(most) })}`);

export const describePicture = (picture: Blob, most: number, signal: AbortSignal): Promise<Description> =>
  ask(`caption?${new URLSearchParams({ regions: String(most) })}`, sent(picture, signal));

/** Ranks sentences for a photo of the index, or for a picture's bytes in base64. */
export const sentences = (
  of: { id: number } | { picture: string },
  sentences: string[],
  signal: AbortSignal,
): Promise<Sentences> =>
  ask("sentences", {
    method: "POST",
    body: JSON.stringify({ ...of, sentences, n: 100 }),
    headers: { "content-type": "application/json" },
    signal,
  });

export const runs = (): Promise<Runs> => ask("runs");
export const run = (name: string): Promise<Curves> => ask(`runs/${encodeURIComponent(name)}`);

export const thumbnail = (id: number): string => `/api/v1/thumbnail/${id}`;
export const photo = (id: number): string => `/api/v1/photo/${id}`;
