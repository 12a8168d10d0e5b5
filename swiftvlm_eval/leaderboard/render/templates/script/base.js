// Elements and numbers. Text from records only ever becomes a text node or an attribute's value.
const DATA = JSON.parse(document.getElementById("data").textContent);
const PHONE = matchMedia("(max-width: 639px)");

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else if (name === "vars") for (const [key, each] of Object.entries(value)) node.style.setProperty(key, each);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return node;
}

const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const MISSING = "–";
const MINUS = "−";

function number(value, digits) {
  if (value === null || value === undefined) return MISSING;
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", MINUS);
}

// Three digits that mean something, for figures of any size.
function brief(value) {
  if (value === null || value === undefined) return MISSING;
  const size = Math.abs(value);
  return number(value, size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

const span = (low, high, digits) =>
  low === undefined || high === undefined || low === null || high === null
    ? "" : `[${number(low, digits)}, ${number(high, digits)}]`;

const percent = (share) => `${number(100 * share, 1)} %`;
const get = (object, key) => (Object.hasOwn(object, key) ? object[key] : undefined);
const p_value = (value) => (value < 0.001 ? "< 0.001" : number(value, 3));

// The marker of a method, in its colour of the present theme.
function swatch(row, size) {
  const [colour, marker, hollow] = row.look;
  return s("svg", { class: "swatch", viewBox: "-7 -7 14 14", width: size || 14, height: size || 14, "aria-hidden": "true" },
    s("path", { d: DATA.markers[marker], class: `c-${colour}${hollow ? " hollow" : ""}` }));
}

function copied(button, text) {
  const done = () => { button.textContent = "copied"; setTimeout(() => { button.textContent = "copy"; }, 1500); };
  const by_hand = () => {
    const area = h("textarea", { class: "offscreen" }, text);
    (button.closest("dialog") || document.body).append(area);
    area.select();
    if (document.execCommand("copy")) done();
    area.remove();
    button.focus();
  };
  if (navigator.clipboard && isSecureContext) navigator.clipboard.writeText(text).then(done, by_hand);
  else by_hand();
}

function code(text) {
  const button = h("button", { type: "button", class: "copy", on: { click: () => copied(button, text) } }, "copy");
  return h("div", { class: "code" }, h("pre", { tabindex: "0" }, text), button);
}
