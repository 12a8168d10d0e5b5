// What the reader chose: one flat object, kept in the address behind the `#`, so that a link shows the same page.
const DEFAULTS = {
  board: DATA.boards.length ? DATA.boards[0].slug : "", budget: "", show: "relative", intervals: "", filter: "",
  columns: "", sort: "", view: "methods", figure: "", axis: "", card: "", against: "", theme: "",
};
const state = { ...DEFAULTS };

const board = () => DATA.boards.find((each) => each.slug === state.board) || DATA.boards[0];
const pruned = (of) => of.sections.filter((section) => !section.vanilla);
const scored = (of) => of.columns.filter((column) => column.kind !== "figure");
const column_of = (key) => board().columns.find((column) => column.key === key);

// The figure that decides the order: the first group's mean, or its only benchmark.
function leading(of) {
  const [group] = Object.entries(of.groups);
  if (group) return group[1][1].length === 1 ? group[1][1][0] : group[0];
  const columns = scored(of).length ? scored(of) : of.columns.filter((column) => column.better !== "none");
  return columns.length ? columns[0].key : "";
}

function budget() {
  const codes = pruned(board()).map((section) => section.code);
  return state.budget === "all" || codes.includes(state.budget) ? state.budget : codes[0] || "all";
}

function sections_shown() {
  const chosen = budget();
  return board().sections.filter((section) => section.vanilla || chosen === "all" || section.code === chosen);
}

function sorting() {
  const [, key, way] = /^(.*):(up|down)$/.exec(state.sort) || [];
  if (key === "method" || (key && column_of(key))) return { key, down: way === "down" };
  const first = PHONE.matches ? figure() : column_of(leading(board()));  // a phone has no other column to sort by
  return { key: first ? first.key : "method", down: first ? first.better === "higher" : false };
}

function figure() {
  const chosen = column_of(state.figure) || column_of(leading(board()));
  return chosen || board().columns[0];
}

function columns_shown() {
  const wanted = state.columns ? state.columns.split(",") : null;
  return board().columns.filter((column) => (wanted ? wanted.includes(column.key) : column.shown));
}

function read_address() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(DEFAULTS)) state[key] = given.has(key) ? given.get(key) : DEFAULTS[key];
  const named = decodeURIComponent_(location.hash.slice(1));
  if (DATA.boards.some((each) => each.slug === named)) state.board = named;
  if (!DATA.boards.some((each) => each.slug === state.board)) state.board = DEFAULTS.board;
}

function decodeURIComponent_(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

function write_address() {
  const chosen = Object.entries(state).filter(([key, value]) => value !== DEFAULTS[key]);
  const text = new URLSearchParams(chosen).toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

// A new board keeps what suits every board and forgets the rest.
function change(part) {
  if (part.board && part.board !== state.board) {
    Object.assign(state, { ...DEFAULTS, show: state.show, intervals: state.intervals, theme: state.theme });
  }
  Object.assign(state, part);
  write_address();
  draw(part);
}
