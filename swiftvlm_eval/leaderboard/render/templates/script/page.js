// Controls, and what is drawn when something changes.
let serial = 0;
function radios(name, title, choices, chosen) {
  const group = `${name}-${(serial += 1)}`;
  return h("fieldset", { class: "seg" }, h("legend", {}, title), choices.map(([value, text, more]) => h("label", { title: more || null },
    h("input", { type: "radio", name: group, value, checked: value === chosen, "data-focus": `${name}-${value}`, on: { change: () => change({ [name]: value }) } }), h("span", {}, text))));
}

function choose(name, title, choices, chosen) {
  const select = h("select", { "data-focus": name, on: { change: (event) => change({ [name]: event.target.value }) } },
    choices.map(([value, text]) => h("option", { value }, text)));
  select.value = chosen;
  return h("label", { class: "pick" }, `${title} `, select);
}

function columns_menu() {
  const shown = columns_shown().map((column) => column.key);
  const set = (key, on) => change({ columns: board().columns.map((column) => column.key).filter((each) => (each === key ? on : shown.includes(each))).join(",") || "none" });
  return h("details", { class: "menu", open: columns_menu.open }, h("summary", { "data-focus": "columns" }, "Columns"), h("div", {}, board().columns.map((column) => h("label", {},
    h("input", { type: "checkbox", value: column.key, checked: shown.includes(column.key), "data-focus": `column-${column.key}`, on: { change: (event) => set(column.key, event.target.checked) } }),
    ` ${column.title}${column.unit ? ` (${column.unit})` : ""}`))));
}

function controls() {
  const of = board(), by_budget = state.view === "budgets";
  const budgets = [["all", "all"], ...pruned(of).map((section) => [section.code, section.short, section.title])];
  const numbers = scored(of).length > 0, ends = of.sections.some((section) => section.rows.some((row) => of.columns.some((column) => ends_of(row, column))));
  return h("div", { class: "controls" },
    radios("budget", "Budget", budgets, budget()),
    numbers ? radios("show", "Show", [["score", "score"], ["relative", "% of vanilla"]], state.show) : null,
    pruned(of).length > 1 ? radios("view", "Table", [["methods", "methods"], ["budgets", "method × budget"]], state.view) : null,
    by_budget || PHONE.matches ? choose("figure", "Figure", of.columns.map((column) => [column.key, column.title]), figure().key) : null,
    by_budget || PHONE.matches || !ends ? null : h("label", { class: "tick-box" },
      h("input", { type: "checkbox", checked: Boolean(state.intervals), "data-focus": "intervals", on: { change: (event) => change({ intervals: event.target.checked ? "1" : "" }) } }), " intervals"),
    of.costs.length > 1 ? choose("axis", "Against", of.costs.map((axis) => [axis.key, axis.title]), state.axis || of.costs[0].key) : null,
    by_budget || PHONE.matches ? null : columns_menu(),
    h("label", { class: "pick" }, "Filter ", h("input", { type: "search", class: "filter", placeholder: "method", value: state.filter, "data-focus": "filter", on: { input: (event) => change({ filter: event.target.value }) } })));
}

// The answer first: who is best in each group at the chosen budget, and who may be.
function answer() {
  const chosen = budget(), sections = pruned(board()).filter((section) => chosen === "all" || section.code === chosen);
  const lines = sections.flatMap((section) => Object.keys(board().groups).map((key) => {
    const with_mark = (mark) => section.rows.filter((row) => (get(row.cells, key) || {}).m === mark);
    const best = with_mark("best"), tied = with_mark("tied");
    if (!best.length) return null;
    const cell = best[0].cells[key];
    const name = (row) => h("button", { type: "button", class: "link", "data-ids": row.id, on: { click: () => change({ card: row.id, against: "" }), ...lights([row.id]) } }, swatch(row), row.label);
    const unsure = with_mark("untested").length, rest = unsure ? "every other row that could be tested" : "every other row on its budget";
    const also = tied.length === 0 ? (cell.l === undefined ? "" : `; ${rest} is significantly worse`)
      : tied.length <= 4 ? ["; not different: ", tied.map((row, place) => [place ? ", " : "", name(row)])] : `; ${tied.length} rows are not different`;
    return h("li", {}, h("b", {}, `Best at ${section.short}, ${group_title(key)}: `), best.map((row, place) => [place ? ", " : "", name(row)]),
      ` ${number(cell.r, 1)} % ${span(cell.l, cell.h, 1)}`, also);
  })).filter(Boolean);
  return lines.length ? h("ul", { class: "answer" }, lines) : null;
}

function power() {
  const lines = sections_shown().filter((section) => !section.vanilla).flatMap((section) => {
    const found = Object.entries(section.detectable);
    return found.length ? h("li", {}, h("b", {}, `Budget ${section.short}: `), found.map(([key, value]) => `${Object.hasOwn(board().groups, key) ? group_title(key) : (column_of(key) || { title: key }).title} ${number(value, 1)}`).join(", ")) : [];
  });
  return lines.length ? [h("p", {}, "Smallest difference of two rows, in percent of vanilla, that these questions show with a chance of 80 % (5 % level):"), h("ul", {}, lines)] : [];
}

function live_part() {
  const home = document.getElementById(board().slug);
  let live = home.querySelector(".live");
  if (!live) {
    live = h("div", { class: "live" }, h("div", { class: "over" }), h("div", { class: "side" }), h("div", { class: "wrap" }));
    home.querySelector(".static").replaceWith(live);
  }
  return live;
}

function draw(part = {}) {
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.focus : null;
  for (const home of document.querySelectorAll(".board")) home.hidden = home.id !== state.board;
  for (const link of document.querySelectorAll("nav [data-board]")) link.toggleAttribute("aria-current", link.dataset.board === state.board);
  if (state.theme) document.documentElement.dataset.theme = state.theme; else delete document.documentElement.dataset.theme;
  if (!board()) return;
  const only_card = Object.keys(part).length > 0 && Object.keys(part).every((key) => ["card", "against"].includes(key));
  if (!only_card) {
    const live = live_part(), typing = "filter" in part && Object.keys(part).length === 1;
    columns_menu.open = Boolean(live.querySelector(".menu[open]"));
    if (!typing) live.querySelector(".over").replaceChildren(...[answer(), controls()].filter(Boolean));
    const table = state.view === "budgets" && pruned(board()).length ? budgets_table() : methods_table();
    live.querySelector(".wrap").replaceChildren(table, legend());
    draw_pictures();
    live.querySelector(".wrap").classList.toggle("scrolls", table.scrollWidth > live.querySelector(".wrap").clientWidth + 1);
    const slot = document.querySelector("#how .power");
    if (slot) slot.replaceChildren(...power());
    const again = focused && [...live.querySelectorAll("[data-focus]")].find((node) => node.dataset.focus === focused);
    if (again && again !== document.activeElement && !typing) again.focus({ preventScroll: true });
  }
  draw_card();
}

function draw_pictures() {
  const side = live_part().querySelector(".side");
  const width = Math.max(260, Math.floor(side.clientWidth || side.parentElement.clientWidth));
  side.replaceChildren(...pictures(width).filter(Boolean));
}

function legend() {
  const marks = board().measured ? [["● ", "best of its budget"], ["≈ ", "not different from the best (5 %, corrected)"], ["? ", "not tested"], ["⚑ ", "off budget"]] : [["● ", "best of its budget"]];
  return h("p", { class: "legend" }, marks.map(([sign, text]) => h("span", {}, h("b", {}, sign), text)), h("span", {}, "– not measured"));
}

function theme() {
  const dark = state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  change({ theme: dark ? "light" : "dark" });
}

function start() {
  read_address();
  document.documentElement.classList.add("script");
  document.getElementById("theme").addEventListener("click", theme);
  for (const link of document.querySelectorAll("nav [data-board]")) link.addEventListener("click", (event) => { event.preventDefault(); change({ board: link.dataset.board }); scrollTo(0, 0); });
  for (const link of document.querySelectorAll('nav a[href^="#"]:not([data-board])')) link.addEventListener("click", (event) => {
    event.preventDefault();  // the address keeps the state
    const part = document.getElementById(link.getAttribute("href").slice(1));
    part.open = true;
    part.scrollIntoView();
    part.querySelector("summary").focus({ preventScroll: true });
  });
  document.getElementById("card").addEventListener("close", () => {
    if (!state.card) return;
    const id = state.card;
    change({ card: "", against: "" });
    const opener = document.querySelector(`.board:not([hidden]) tr[data-ids~="${CSS.escape(id)}"] button.open`);
    if (opener && document.activeElement === document.body) opener.focus();
  });
  document.getElementById("card").addEventListener("click", (event) => { if (event.target === event.currentTarget) event.currentTarget.close(); });
  addEventListener("hashchange", () => { read_address(); draw(); });
  PHONE.addEventListener("change", () => draw());
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
  addEventListener("beforeprint", () => { start.kept = { ...state }; Object.assign(state, { budget: "all", view: "methods", filter: "", card: "" }); draw(); });
  addEventListener("afterprint", () => { Object.assign(state, start.kept || {}); draw(); });
  draw();
}

start();
