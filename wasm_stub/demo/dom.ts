// Elements and words. Text only ever becomes text: no string is parsed as markup anywhere here.

type Child = Node | string | number;

/** The element of the page with this id. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as T;
}

/** A new HTML element. */
export function el(
  tag: string,
  attributes: Readonly<Record<string, string>> = {},
  ...children: Child[]
): HTMLElement {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.map((child) => (typeof child === "number" ? `${child}` : child)));
  return made;
}

/** A new SVG element. */
export function svg(
  tag: string,
  attributes: Readonly<Record<string, string | number>>,
  ...children: Node[]
): SVGElement {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, `${value}`);
  made.append(...children);
  return made;
}

/** Shows or hides elements by id. */
export function show(visible: boolean, ...ids: string[]): void {
  for (const id of ids) byId(id).hidden = !visible;
}

/** Sets the text of an element if it differs, so that a reader is not told the same again. */
export function words(id: string, text: string): void {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

/** Name and value pairs of a `dl`. */
export function facts(id: string, pairs: readonly (readonly [string, string])[]): void {
  byId(id).replaceChildren(
    ...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
}

/** A row of a table: the first cell is its header. */
export function row(header: Child, ...cells: readonly (Child | HTMLElement)[]): HTMLElement {
  return el("tr", {}, el("th", { scope: "row" }, header), ...cells.map(cell));
}

/** A head of a table; a column without a name heads nothing. */
export function head(...names: readonly string[]): HTMLElement {
  const cells = names.map((name) => (name ? el("th", { scope: "col" }, name) : el("td")));
  return el("thead", {}, el("tr", {}, ...cells));
}

function cell(content: Child | HTMLElement): HTMLElement {
  return content instanceof HTMLTableCellElement ? content : el("td", {}, content);
}

/** Whole numbers with the reader's separators. */
export function count(value: number): string {
  return Math.round(value).toLocaleString("en");
}
