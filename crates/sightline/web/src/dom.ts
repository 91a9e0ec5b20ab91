// Elements by id, and elements anew.

export function byId<T extends Element = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as unknown as T;
}

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Eight colours, handed out in the order in which regions appear, so that few regions never share one. */
export function colours(regions: Iterable<number>): (region: number) => string {
  const order = [...new Set(regions)];
  return (region) => {
    const at = order.indexOf(region);
    return `c${(at < 0 ? order.length + region : at) % 8}`;
  };
}

export const fileName = (path: string): string => path.split(/[\\/]/).pop() ?? path;
