// Elements from data, safe by construction: text is always a text node, and a drawing is copied shape by shape.

const SVG = "http://www.w3.org/2000/svg";
const LINKS = new Set(["href", "src", "action", "formaction"]);

/** An element: h("p", {class: "soft"}, "text", node, [more]). Null and false children are left out. */
export function h(tag, props, ...children) {
  return build(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function s(tag, props, ...children) {
  return build(document.createElementNS(SVG, tag), props, children);
}

function build(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "value") element.value = value;
    else if (/^on|^srcdoc$|html$/i.test(name)) throw new Error(`${name} is not for data`);
    else if (LINKS.has(name) && !leadsToPage(value))
      continue; // javascript: and the like stay dead
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...nodes(children));
  return element;
}

function leadsToPage(address) {
  return URL.canParse(address, location.href) && /^https?:$/.test(new URL(address, location.href).protocol);
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

const DRAWN = new Set(
  "svg g path rect circle ellipse line polyline polygon text tspan defs use clipPath title desc".split(" "),
);

/** The API's drawing as elements: shapes and text only, links inside the drawing only; anything else is left out. */
export function drawing(text) {
  const parsed = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  return copy(parsed) ?? h("p", { class: "soft" }, "The drawing could not be read.");
}

function copy(node) {
  if (node.nodeType === Node.TEXT_NODE) return document.createTextNode(node.data);
  if (node.nodeType !== Node.ELEMENT_NODE || !DRAWN.has(node.localName)) return null;
  const element = document.createElementNS(SVG, node.localName);
  for (const { localName: name, value } of node.attributes) {
    if (
      /^on/i.test(name) ||
      name === "style" ||
      name === "xmlns" ||
      name === "xlink" ||
      (name === "href" && !value.startsWith("#"))
    )
      continue;
    element.setAttribute(name, value);
  }
  element.append(...nodes([...node.childNodes].map(copy)));
  return element;
}

/** Put new content into an element. */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

/** Set or remove an attribute. */
export function attribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : value);
}

/** Say something to a screen reader without moving anything on the screen. */
export function announce(text) {
  const status = document.getElementById("status");
  if (status.textContent !== text) status.textContent = text;
}

let counter = 0;

/** An id that no other element has. */
export function uniqueId(stem) {
  counter += 1;
  return `${stem}-${counter}`;
}
