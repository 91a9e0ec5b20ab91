// What is asked and what is open: all of it stands in the address, so that it can be shared and gone back to.

export interface State {
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
}

const texts = ["q", "not", "folder", "from", "until", "box"] as const;

export function read(address: string): State {
  const given = new URL(address).searchParams;
  const number = (name: string): number | null => {
    const text = given.get(name);
    const value = Number(text);
    return text !== null && text !== "" && Number.isFinite(value) ? value : null;
  };
  const text = (name: string): string => given.get(name) ?? "";
  return {
    q: text("q"),
    not: text("not"),
    folder: text("folder"),
    from: text("from"),
    until: text("until"),
    box: text("box"),
    like: number("like"),
    photo: number("photo"),
    affinity: Math.max(0, number("affinity") ?? 0),
  };
}

export function write(state: State): string {
  const given = new URLSearchParams();
  for (const name of texts) if (state[name].trim()) given.set(name, state[name].trim());
  if (state.like !== null) given.set("like", String(state.like));
  if (state.photo !== null) given.set("photo", String(state.photo));
  if (state.affinity > 0) given.set("affinity", String(state.affinity));
  const text = given.toString();
  return text ? `?${text}` : "/";
}

/** The part of the state that the server is asked with. */
export function question(state: State): URLSearchParams {
  const given = new URLSearchParams();
  for (const name of texts) if (state[name].trim()) given.set(name, state[name].trim());
  if (state.like !== null) given.set("like", String(state.like));
  return given;
}
