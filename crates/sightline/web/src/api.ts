// The server's records and how they are asked for; see /api/v1/openapi.json.

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
  cut_off: number;
}

async function ask<T>(path: string, options: RequestInit = {}): Promise<T> {
  const response = await fetch(`/api/v1/${path}`, options);
  const body: unknown = await response.json().catch(() => ({}));
  if (!response.ok) {
    const message = (body as { error?: string }).error;
    throw new Error(message ?? `the server answered ${response.status}`);
  }
  return body as T;
}

export const status = (): Promise<Status> => ask("status");

export const search = (query: URLSearchParams, signal: AbortSignal): Promise<Answer> =>
  ask(`search?${query}`, { signal });

export const similar = (query: URLSearchParams, picture: Blob, signal: AbortSignal): Promise<Answer> =>
  ask(`similar?${query}`, {
    method: "POST",
    body: picture,
    headers: { "content-type": picture.type || "application/octet-stream" },
    signal,
  });

export const regions = (id: number, q: string, affinity: number): Promise<Regions> =>
  ask(`regions/${id}?${new URLSearchParams({ q, affinity: String(affinity) })}`);

export const describe = (id: number, most: number): Promise<Description> =>
  ask(`caption?${new URLSearchParams({ id: String(id), regions: String(most) })}`);

export const thumbnail = (id: number): string => `/api/v1/thumbnail/${id}`;
export const photo = (id: number): string => `/api/v1/photo/${id}`;
