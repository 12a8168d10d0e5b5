// What a cell says: its value, its text, its mark, and the mark in words.
const MARKS = { best: "●", tied: "≈", untested: "?", off_budget: "⚑" };

function value_of(row, column) {
  if (column.kind === "figure") {
    const value = get(row.figures, column.key);
    return value === undefined ? null : value;
  }
  const cell = get(row.cells, column.key);
  if (!cell) return null;
  const value = state.show === "score" && column.kind === "score" && cell.s !== undefined ? cell.s : cell.r;
  return value === undefined ? (cell.s === undefined ? null : cell.s) : value;
}

function digits_of(row, column) {
  const cell = get(row.cells, column.key);
  return column.kind === "score" && cell && (state.show === "score" || cell.r === undefined) ? column.digits : 1;
}

function unit_of(column) {
  if (column.kind === "figure") return column.unit;
  return column.kind === "score" && state.show === "score" ? "" : "%";
}

function text_of(row, column) {
  const value = value_of(row, column);
  if (value === null) return MISSING;
  if (column.kind !== "figure") return number(value, digits_of(row, column));
  return column.factor ? brief(value * column.factor) : number(value, column.digits);
}

// Ends of the interval of what is shown; that of a score is that of its percentage, times vanilla's score.
function ends_of(row, column) {
  if (column.kind === "figure") {
    const [low, high] = (column.between || []).map((name) => get(row.figures, name));
    return low === undefined || high === undefined ? null : [low, high];
  }
  const cell = get(row.cells, column.key);
  if (!cell || cell.l === undefined || cell.h === undefined) return null;
  if (state.show === "score" && column.kind === "score" && cell.s !== undefined && cell.r) {
    return [cell.l, cell.h].map((end) => (end * cell.s) / cell.r);
  }
  return [cell.l, cell.h];
}

function interval_text(row, column) {
  const ends = ends_of(row, column);
  if (!ends) return "";
  return span(ends[0], ends[1], column.kind === "figure" ? column.digits : digits_of(row, column));
}

const mark_of = (row, column) => (get(row.cells, column.key) || {}).m || "";

function mark_words(row, column) {
  const cell = get(row.cells, column.key) || {};
  if (cell.m === "best") return "best of its budget";
  if (cell.m === "tied") return `not different from the best: no row of the budget is significantly better (p ${p_value(cell.p)})`;
  if (cell.m === "untested") return "whether it differs from the best could not be tested, for want of per-sample scores";
  if (cell.m !== "off_budget") return "";
  if (cell.x === undefined || cell.a === undefined) return "off budget: what it executed was not recorded; it takes no part in the marks";
  return `off budget: executed ${number(cell.x, 1)} visual tokens per layer for ${number(cell.a, 1)} asked; it takes no part in the marks`;
}

// One sentence for a cell, for pointers that rest and for those who listen.
function describe(row, column) {
  const unit = column.kind === "figure" ? column.unit : state.show === "score" && column.kind === "score" ? "" : "% of vanilla";
  const parts = [`${column.title}: ${text_of(row, column)} ${unit}`.trim()];
  const ends = interval_text(row, column);
  if (ends) parts.push(`${column.key === "prefill_ms" ? "quartiles" : "95 % interval"} ${ends}`);
  const cell = get(row.cells, column.key);
  if (cell && cell.n) parts.push(`${cell.n} questions`);
  if (cell && cell.k) parts.push(`place ${cell.k[0]} to ${cell.k[1]} (95 %)`);
  const words = mark_words(row, column);
  if (words) parts.push(words);
  return parts.join("; ");
}

const off_budget = (row) => Object.values(row.cells).some((cell) => cell.m === "off_budget");

// Places among the rows of a budget: those off budget have none; equal values share one.
function places(rows, column) {
  const found = new Map();
  const taking = rows.filter((row) => value_of(row, column) !== null && mark_of(row, column) !== "off_budget");
  for (const row of taking) {
    const mine = value_of(row, column);
    const better = taking.filter((other) =>
      column.better === "lower" ? value_of(other, column) < mine : value_of(other, column) > mine);
    found.set(row.id, better.length + 1);
  }
  return found;
}

function ordered(rows) {
  const { key, down } = sorting();
  const column = column_of(key);
  const value = (row) => (column ? value_of(row, column) : row.label);
  return [...rows].sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
    return down ? -order : order;
  });
}

// Rows of several budgets that are one method with the same options; printed rows have no options, but their label.
const line_of = (row) => (Object.keys(row.card.options).length ? `${row.method} ${JSON.stringify(row.card.options)}` : row.label);

const matches = (row) => row.label.toLowerCase().includes(state.filter.trim().toLowerCase());
