// The two tables: rows by budget, and methods by budget for one figure.
function help(column) {
  const text = column.help;
  return text && h("button", {
    type: "button", class: "q", title: text, "aria-label": `What is ${column.title}? ${text}`, "data-focus": `q-${column.key}`,
    on: { click: (event) => { event.stopPropagation(); tell(event.currentTarget, text); } },
  }, "?");
}

// A plain sentence below a question mark; the next click or Escape takes it away.
function tell(near, text) {
  document.querySelectorAll(".tip.said").forEach((old) => old.remove());
  const box = near.getBoundingClientRect();
  const tip = h("div", { class: "tip said", role: "status" }, text);
  document.body.append(tip);
  const left = Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8));
  Object.assign(tip.style, { left: `${left + scrollX}px`, top: `${box.bottom + scrollY + 6}px` });
  const away = (event) => {
    if (event.type === "keydown" && event.key !== "Escape") return;
    tip.remove();
    removeEventListener("click", away, true);
    removeEventListener("keydown", away, true);
  };
  addEventListener("click", away, true);
  addEventListener("keydown", away, true);
}

function head(key, title, unit, column) {
  const { key: sorted, down } = sorting();
  const mine = sorted === key;
  const act = () => {
    const first = column && column.better === "higher" ? "down" : "up";
    const next = mine ? (down ? "up" : "down") : first;
    change({ sort: `${key}:${next}` });
  };
  const button = h("button", { type: "button", class: "sort", "data-focus": `sort-${key}`, on: { click: act } }, title,
    h("span", { class: "way", "aria-hidden": "true" }, mine ? (down ? "▼" : "▲") : ""));
  return h("th", {
    scope: "col", "data-column": key, class: `${key === "method" ? "name" : ""}${mine ? " sorted" : ""}`,
    "aria-sort": mine ? (down ? "descending" : "ascending") : null,
  }, button, column && h("div", { class: "unit" }, unit, help(column)));
}

function method_cell(row, key) {
  const flags = [];
  if (row.card.status.some((status) => status !== "complete")) flags.push(row.card.status.join(", "));
  if (off_budget(row)) flags.push("off budget");
  const open = () => change({ card: row.id, against: "" });
  const noted = row.notes.length > 0 && flags.length === 0;
  return h("th", { scope: "row", class: "name" },
    h("button", { type: "button", class: "open", "data-focus": `open-${key || row.id}`, on: { click: open, keydown: step } },
      swatch(row), h("span", { class: "words" }, h("b", {}, row.name), row.detail && h("small", {}, row.detail)),
      flags.length ? h("em", { class: "flag" }, flags.join(", ")) : null,
      noted ? h("span", { class: "noted", title: row.notes.join("; ") }, "*", h("span", { class: "unseen" }, " (see its notes)")) : null));
}

// Arrow keys go from row to row.
function step(event) {
  const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!way) return;
  const buttons = [...event.currentTarget.closest("table").querySelectorAll("button.open")];
  const next = buttons[buttons.indexOf(event.currentTarget) + way];
  if (next) { next.focus(); event.preventDefault(); }
}

// Lowest and highest of what a column shows, intervals included, over the rows of the budgets shown.
function scale_of(rows, column) {
  const values = rows.filter((row) => !row.vanilla).map((row) => value_of(row, column)).filter((value) => value !== null);
  const base = rows.filter((row) => row.vanilla).map((row) => value_of(row, column)).find((value) => value !== null);
  const top = Math.max(...values, base === undefined ? -Infinity : base);
  const ends = rows.map((row) => ends_of(row, column)).filter(Boolean).flat();
  return { low: Math.min(...values), top, from: Math.min(...values, ...ends), to: Math.max(top, ...ends) };
}

function value_cell(row, column, scale, full) {
  const value = value_of(row, column), mark = mark_of(row, column), classes = ["num"];
  if (mark) classes.push(mark);
  if (sorting().key === column.key) classes.push("sorted");
  if (value === null) return h("td", { class: "num none", "data-column": column.key, title: `${column.title}: not measured` }, MISSING);
  const vars = {};
  if (column.kind !== "figure" && !row.vanilla && scale.top > scale.low) {
    const share = Math.max(0, Math.min(1, (value - scale.low) / (scale.top - scale.low)));
    vars["--strength"] = `${(18 * share).toFixed(1)}%`;
    classes.push("shade", `g-${column.group || "none"}`);
  }
  const ends = ends_of(row, column), text = interval_text(row, column);
  const written = full || state.intervals;
  return h("td", { class: classes.join(" "), "data-column": column.key, "data-value": value, title: describe(row, column), vars },
    h("span", { class: "figure" },
      mark && h("span", { class: "mark", "aria-label": mark_words(row, column), role: "img" }, MARKS[mark]),
      h("span", { class: "value" }, text_of(row, column))),
    ends && written ? h("span", { class: "ci" }, text) : null,
    ends && !written && column.kind !== "figure" ? hairline(ends, value, scale) : null);
}

function hairline(ends, value, scale) {
  const at = (x) => (100 * (x - scale.from)) / (scale.to - scale.from || 1);
  return h("span", { class: "bar", "aria-hidden": "true", vars: {
    "--from": `${at(ends[0])}%`, "--wide": `${at(ends[1]) - at(ends[0])}%`, "--at": `${at(value)}%` } }, h("i"), h("b"));
}

function line(row, columns, scales, place) {
  const column = column_of(sorting().key);
  const cell = column && get(row.cells, column.key);
  const between = cell && cell.k ? (cell.k[0] === cell.k[1] ? String(cell.k[0]) : `${cell.k[0]}–${cell.k[1]}`) : "";
  const out = column ? mark_of(row, column) === "off_budget" : off_budget(row);
  const classes = [row.vanilla && "vanilla", out && "off", row.card.status.some((each) => each !== "complete") && "unsure"];
  const rank = h("td", { class: "rank", title: between && `95 % interval of its place: ${between.replace("–", " to ")}` },
    row.vanilla ? "" : place === undefined ? MISSING : String(place), between && h("small", {}, between));
  const open = (event) => { if (!event.target.closest("button, a")) change({ card: row.id, against: "" }); };
  return h("tr", { "data-ids": row.id, "data-label": row.label, class: classes.filter(Boolean).join(" "), on: { click: open, ...lights([row.id]) } },
    PHONE.matches ? null : rank, method_cell(row), columns.map((each) => value_cell(row, each, scales.get(each.key), PHONE.matches)));
}

function methods_table() {
  const columns = PHONE.matches ? [figure()] : columns_shown();
  const sections = sections_shown();
  const rows = sections.flatMap((section) => section.rows);
  const scales = new Map(columns.map((column) => [column.key, scale_of(rows, column)]));
  const heads = columns.map((column) => head(column.key, column.title, unit_of(column), column));
  const bodies = sections.map((section) => {
    const column = column_of(sorting().key);
    const place = column ? places(section.rows, column) : new Map();
    const shown = section.vanilla ? section.rows : ordered(section.rows.filter(matches));
    const title = h("tr", { class: "budget" }, h("th", { scope: "rowgroup", colspan: columns.length + (PHONE.matches ? 1 : 2) },
      h("span", {}, section.title), h("small", {}, `${shown.length === section.rows.length ? "" : `${shown.length} of `}${section.rows.length} rows`)));
    return h("tbody", { "data-budget": section.code }, section.vanilla ? null : title,
      shown.map((row) => line(row, columns, scales, place.get(row.id))));
  });
  return h("table", { class: "methods" }, h("caption", { class: "unseen" }, `${board().title}: methods by budget`),
    h("thead", {}, h("tr", {}, PHONE.matches ? null : h("th", { scope: "col", class: "rank" }, h("span", { title: "place by the sorted column" }, "#")),
      head("method", "method"), heads)), bodies);
}

// Methods as lines, budgets as columns, one figure.
function budgets_table() {
  const column = figure(), sections = pruned(board());
  const rows = sections.flatMap((section) => section.rows), scale = scale_of([...rows, ...vanilla_rows()], column);
  const found = new Map();
  for (const section of sections) for (const row of section.rows.filter(matches)) {
    const line = line_of(row);
    if (!found.has(line)) found.set(line, new Map());
    found.get(line).set(section.code, row);
  }
  const [, key, way] = /^at-(.*):(up|down)$/.exec(state.sort) || [null, sections.length ? sections[0].code : "", column.better === "lower" ? "up" : "down"];
  const value = (cells) => (cells.has(key) ? value_of(cells.get(key), column) : null);
  const lines = [...found].sort(([, a], [, b]) => {
    const x = value(a), y = value(b);
    if (x === null || y === null) return (x === null) - (y === null);
    return way === "down" ? y - x : x - y;
  });
  const heads = sections.map((section) => {
    const mine = section.code === key, next = mine && way === "down" ? "up" : "down";
    return h("th", { scope: "col", class: mine ? "sorted" : "", "aria-sort": mine ? (way === "down" ? "descending" : "ascending") : null },
      h("button", { type: "button", class: "sort", title: section.title, "data-focus": `sort-at-${section.code}`, on: { click: () => change({ sort: `at-${section.code}:${next}` }) } },
        section.short, h("span", { class: "way", "aria-hidden": "true" }, mine ? (way === "down" ? "▼" : "▲") : "")));
  });
  const body = lines.map(([key_of_line, cells]) => {
    const first = [...cells.values()].reduce((a, b) => (b.detail.length > a.detail.length ? b : a)), ids = [...cells.values()].map((row) => row.id);
    return h("tr", { "data-ids": ids.join(" "), on: lights(ids) }, method_cell(first, key_of_line),
      sections.map((section) => {
        const row = cells.get(section.code);
        if (!row) return h("td", { class: "num none", title: "not measured" }, MISSING);
        const cell = value_cell(row, column, scale, true);
        cell.classList.add("opens");
        cell.addEventListener("click", () => change({ card: row.id, against: "" }));
        return cell;
      }));
  });
  return h("table", { class: "budgets" }, h("caption", {}, `${column.title}${column.kind === "figure" || state.show === "score" ? "" : ", % of vanilla"}; vanilla: ${vanilla_rows().map((row) => text_of(row, column)).join(", ") || MISSING}`),
    h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "name" }, "method"), heads)), h("tbody", {}, body));
}

const vanilla_rows = () => board().sections.filter((section) => section.vanilla).flatMap((section) => section.rows);
