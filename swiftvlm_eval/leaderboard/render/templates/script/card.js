// The card of a row: who it is, what it did, what it scored, what it cost, where it ran, and how to make it again.
const part = (title, ...children) => h("section", {}, h("h3", {}, title), children);
const plain_table = (...children) => h("div", { class: "across" }, h("table", { class: "plain" }, children));
const pairs_list = (pairs) => h("dl", {}, pairs.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value === null || value === undefined ? h("i", {}, "not recorded") : value)]));

function find_row(id) {
  for (const section of board().sections) for (const row of section.rows) if (row.id === id) return { row, section };
  return null;
}

function outside(address, text) {
  return h("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, text);
}

function card_head(row, section) {
  const facts = get(DATA.methods, row.method);
  const source = facts && (facts.arxiv ? outside(`https://arxiv.org/abs/${encodeURIComponent(facts.arxiv)}`, facts.source) : facts.source);
  const close = h("button", { type: "button", class: "close", "aria-label": "close the card", on: { click: () => change({ card: "", against: "" }) } }, "×");
  return h("header", {}, h("div", {}, h("h2", { id: "card-title", tabindex: "-1" }, swatch(row, 20), facts ? facts.title : row.method),
    h("p", { class: "muted" }, `${row.label} · ${section.title}`),
    facts ? h("p", {}, `${facts.summary[0].toUpperCase()}${facts.summary.slice(1)}.`) : h("p", { class: "muted" }, "Not a registered method: nothing is known of it but its records."),
    facts ? h("p", { class: "muted" }, source, ` · authors' code: ${facts.code}`) : null,
    facts ? h("p", { class: "muted" }, facts.servable ? "With its default options a serving engine can be handed its rows." : "With its default options no serving engine can run it.") : null), close);
}

// Why the row is marked: every mark of its cells in words, its status and its notes.
function card_marks(row) {
  const by_words = new Map();
  for (const column of scored(board())) {
    const words = mark_words(row, column);
    if (words) by_words.set(words, [...(by_words.get(words) || []), column.title]);
  }
  const lines = [...by_words].map(([words, titles]) => h("li", {}, h("b", {}, titles.join(", ")), `: ${words}`));
  const unsure = row.card.status.filter((status) => status !== "complete").map((status) => h("li", {}, `run is ${status}`));
  const notes = row.notes.map((note) => h("li", {}, note));
  return lines.length + unsure.length + notes.length ? part("Why it is marked", h("ul", {}, unsure, notes, lines)) : null;
}

const executions = (row) => Object.values(row.card.tasks).map((task) => task.execution).filter(Boolean);

// Mean of a figure over all questions of all benchmarks; null unless every benchmark has it.
function mean_over(found, value) {
  if (!found.length || found.some((each) => value(each) === null || value(each) === undefined)) return null;
  const count = found.reduce((sum, each) => sum + each.samples, 0);
  return found.reduce((sum, each) => sum + each.samples * value(each), 0) / count;
}

function card_layers(row) {
  const found = executions(row);
  if (!found.length) return board().measured ? part("Visual tokens", h("p", { class: "muted" }, "The run did not report what it executed.")) : null;
  const each_layer = found.map((each) => ({ samples: each.samples, rows: each.layers.flatMap(([value, times]) => Array(times).fill(value)) }));
  const entering = mean_over(found, (each) => each.visual_tokens), executed = mean_over(found, (each) => each.mean_visual_tokens);
  const planned = mean_over(found, (each) => (each.planned_share === null ? null : each.planned_share * each.visual_tokens));
  const asked = row.card.asked === null ? null : row.card.asked * entering;
  const facts = [["asked", asked === null ? null : `${number(asked, 1)} per layer (${percent(row.card.asked)} of ${number(entering, 0)})`],
    ["planned", planned === null ? null : `${number(planned, 1)} per layer`], ["executed", `${number(executed, 1)} per layer`]];
  const own = mean_over(found, (each) => each.attributed_mean_visual_tokens);
  if (own !== null) facts.push(["by its own paper's count", `${number(own, 1)} per layer`]);
  const same = each_layer.every((each) => each.rows.length === each_layer[0].rows.length);
  const drawn = same && each_layer[0].rows.length
    ? layers_picture(each_layer[0].rows.map((_, layer) => mean_over(each_layer, (each) => each.rows[layer])), entering, planned, row.look[0]) : null;
  return part("Visual tokens per layer", drawn, pairs_list(facts));
}

// Executed rows as steps, the planned mean as a broken line.
function layers_picture(rows, entering, planned, colour) {
  const [width, height, left, bottom] = [420, 130, 34, 108];
  const x = linear(0, rows.length, left, width - 4), y = linear(0, Math.max(entering, ...rows), bottom, 10);
  const steps = rows.map((value, layer) => `V${y(value)}H${x(layer + 1)}`).join("");
  const planned_line = planned === null ? null : [
    s("line", { class: "planned", x1: left, x2: width - 4, y1: y(planned), y2: y(planned) }),
    s("text", { class: "tick", x: width - 6, y: y(planned) - 4, "text-anchor": "end" }, `planned mean ${number(planned, 1)}`)];
  const every = Math.ceil(rows.length / 12);
  return s("svg", { class: "layers", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `visual tokens executed in layers 1 to ${rows.length}: ${rows.map((value) => number(value, 1)).join(", ")}` },
    s("path", { class: `area c-${colour}`, d: `M${left},${bottom}${steps}V${bottom}Z` }),
    s("line", { class: "axis", x1: left, x2: width - 4, y1: bottom, y2: bottom }), planned_line,
    [0, entering].map((at) => s("text", { class: "tick", x: left - 5, y: y(at) + 4, "text-anchor": "end" }, number(at, 0))),
    rows.map((_, layer) => (layer % every ? null : s("text", { class: "tick", x: x(layer + 0.5), y: bottom + 14, "text-anchor": "middle" }, String(layer + 1)))),
    s("text", { class: "tick", x: left, y: height - 1 }, "layer"));
}

function card_scores(row) {
  const columns = scored(board()).filter((column) => get(row.cells, column.key));
  if (!columns.length) return null;
  const any = (key) => columns.some((column) => row.cells[column.key][key] !== undefined);
  const heads = [" ", "score", "% of vanilla", any("l") && "95 % interval", any("n") && "n", any("k") && "place", any("p") && "p, best"].filter(Boolean);
  return part("Scores", plain_table(h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, columns.map((column) => {
      const cell = row.cells[column.key], mark = cell.m ? `${MARKS[cell.m]} ` : "";
      const spread = cell.e === undefined ? "" : h("span", { class: "spread" }, ` ± ${number(cell.e, column.digits)}`);
      return h("tr", {}, h("th", { scope: "row" }, column.title), h("td", {}, cell.s === undefined ? "" : [number(cell.s, column.digits), spread]),
        h("td", {}, `${mark}${cell.r === undefined ? MISSING : number(cell.r, 1)}`), any("l") && h("td", {}, span(cell.l, cell.h, 1) || MISSING),
        any("n") && h("td", {}, cell.n === undefined ? MISSING : cell.n.toLocaleString("en")),
        any("k") && h("td", {}, cell.k ? (cell.k[0] === cell.k[1] ? cell.k[0] : `${cell.k[0]}–${cell.k[1]}`) : MISSING),
        any("p") && h("td", {}, cell.p === undefined ? MISSING : p_value(cell.p)));
    }))), any("e") || any("n") || any("k") || any("p") ? h("p", { class: "muted" }, [any("e") && h("span", { class: "spread" }, "± is one standard error. "), any("n") && "n: questions.", any("k") && "Place: 95 % interval of its place in the budget.",
    any("p") && "p, best: of the hypothesis that no row of the budget is better, corrected for all rows."].filter(Boolean).map((text) => [text, " "])) : null);
}

// The row against another one of its budget.
function card_against(row, section) {
  const mine = section.rows.findIndex((each) => each.id === row.id);
  const by_other = new Map();
  for (const [column, pairs] of board().columns.map((each) => [each.key, get(section.pairs, each.key) || []])) for (const [first, second, ...figures] of pairs) {
    if (first !== mine && second !== mine) continue;
    const [difference, low, high, p] = figures, other = section.rows[first === mine ? second : first].id;
    const turned = first === mine ? [difference, low, high, p] : [-difference, -high, -low, p];
    by_other.set(other, [...(by_other.get(other) || []), [column, ...turned]]);
  }
  if (!by_other.size) return null;
  const others = section.rows.filter((each) => by_other.has(each.id));
  const choice = h("select", { id: "against", on: { change: (event) => change({ against: event.target.value }) } },
    others.map((each) => h("option", { value: each.id }, each.label)));
  const shown = by_other.has(state.against) ? state.against : others[0].id;
  choice.value = shown;
  const body = by_other.get(shown).map(([key, difference, low, high, p]) => h("tr", {}, h("th", { scope: "row" }, column_of(key).title),
    h("td", {}, `${difference > 0 ? "+" : ""}${number(difference, 1)}`), h("td", {}, span(low, high, 1)), h("td", {}, p_value(p)), h("td", { class: "words" }, p < 0.05 ? "different" : "not shown to differ")));
  return part("Compare with", h("p", {}, h("label", { for: "against", class: "unseen" }, "other row"), choice), plain_table(
    h("thead", {}, h("tr", {}, ["", "difference, % of vanilla", "95 % interval", "p, corrected", ""].map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, body)));
}

function card_cost(row) {
  const of = board(), [factor, unit] = of.flops, found = executions(row), lines = [];
  const total = mean_over(found, (each) => each.executed_tflops), printed = get(row.figures, "paper_tflops");
  const base = get(row.figures, "cost");
  const line = (name, value, share) => lines.push(h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value), h("td", {}, share || "")));
  const flops = (value) => `${brief(value * factor)} ${unit}`;
  if (total !== null) {
    const counted = found.every((each) => each.selection_counted);
    const kinds = [...new Set(found.flatMap((each) => Object.keys(each.selection)))].sort();
    const parts = kinds.map((kind) => [kind, mean_over(found, (each) => get(each.selection, kind) || 0)]);
    const selection = parts.reduce((sum, [, value]) => sum + value, 0);
    line("prefill FLOPs, executed", flops(total), base === undefined ? "" : `${number(base, 3)} × vanilla`);
    if (counted) line("· decoder layers", flops(total - selection), percent((total - selection) / total));
    if (counted) for (const [kind, value] of parts) line(`· selection: ${kind}`, flops(value), percent(value / total));
    if (!counted) line("· selection", "not itemised in this record");
  } else if (base !== undefined) line("prefill FLOPs", `${number(base, 3)} × vanilla`);
  if (printed !== undefined) line("prefill FLOPs at 70 text tokens", flops(printed));
  const times = of.columns.filter((column) => ["ms", "s", "x"].includes(column.unit) && get(row.figures, column.key) !== undefined);
  for (const column of times) line(column.title, `${text_of(row, column)} ${column.unit}`, interval_text(row, column));
  const missing = [total === null && "executed FLOPs", !get(row.figures, "prefill_ms") && "prefill time", !get(row.figures, "total_s") && "total time",
    "decode time per token", "peak memory"].filter(Boolean);
  return part("Cost, mean over questions", lines.length ? plain_table(h("tbody", {}, lines)) : null,
    h("p", { class: "muted" }, `Not measured here: ${missing.join(", ")}.`));
}

function card_where(row) {
  const tasks = Object.entries(row.card.tasks).map(([name, task]) => [name,
    [`${task.answered === null ? "?" : task.answered} of ${task.expected} answered, ${task.failed === null ? "?" : task.failed} failed; the whole task has ${task.available}`,
      task.dataset ? `; data: ${task.dataset}` : "; data revision not recorded", `; prompts ${task.prompts || "not recorded"}, documents ${task.documents || "not recorded"}`].join("")]);
  return row.card.runs.map((run, place) => part(row.card.runs.length > 1 ? `Where, run ${place + 1}` : "Where",
    Object.entries(run.facts).map(([title, facts]) => h("details", { open: title === "model" }, h("summary", {}, title), pairs_list(Object.entries(facts).map(([name, value]) => [name.replaceAll("_", " "), value])))),
    place ? null : h("details", {}, h("summary", {}, "data"), pairs_list(tasks)),
    place ? null : h("details", {}, h("summary", {}, "method options"), pairs_list([...Object.entries(row.card.options), ["schedule", run.schedule], ...(run.source_sha256 ? [["source file SHA-256", run.source_sha256]] : [])]))));
}

function card_again(row) {
  const found = Object.entries(row.card.reproduce);
  if (!board().measured) return null;
  return part("Make this row again", found.length ? found.map(([kind, text]) => h("div", {}, h("h4", {}, kind.replaceAll("_", " ")), code(text)))
    : h("p", { class: "muted" }, "The records of this row do not hold the commands; its options, model and data are above."));
}

function bibtex(row) {
  const facts = get(DATA.methods, row.method);
  if (!facts || !facts.arxiv) return null;
  const text = `@misc{arxiv:${facts.arxiv},\n  title = {${facts.title}},\n  eprint = {${facts.arxiv}},\n  archivePrefix = {arXiv},\n  url = {https://arxiv.org/abs/${facts.arxiv}},\n  note = {short title}\n}`;
  return part("Cite the method", code(text), h("p", { class: "muted" }, outside(`https://arxiv.org/bibtex/${encodeURIComponent(facts.arxiv)}`, "full entry with authors"), ", from arXiv"));
}

function card_files(row) {
  const link = (name, address, text) => h("li", {}, address ? h("a", { href: address }, text || name) : [text || name, h("i", { class: "muted" }, " (not beside this page)")]);
  const items = row.card.files.map(([name, address]) => link(name, address, `record ${name}`));
  for (const run of row.card.runs) if (run.samples) items.push(link(run.samples[0], run.samples[2], `${run.samples[1]} answers, ${run.samples[0]}`));
  for (const [title, address] of board().files) if (/CSV|JSON/.test(title)) items.push(link(title, address, `board as ${title}`));
  return items.length ? part("Files", h("ul", {}, items)) : null;
}

function draw_card() {
  const dialog = document.getElementById("card"), found = state.card && find_row(state.card);
  if (!found) { if (dialog.open) dialog.close(); return; }
  const { row, section } = found;
  const kept = document.activeElement && document.activeElement.id === "against", scrolled = dialog.scrollTop;
  dialog.replaceChildren(card_head(row, section), card_marks(row) || "", ...[card_scores(row), card_against(row, section), card_layers(row), card_cost(row),
    card_again(row), card_where(row), card_files(row), bibtex(row)].flat().filter(Boolean),
    h("details", { class: "raw" }, h("summary", {}, "What this page holds of the row, as JSON"), h("pre", { tabindex: "0" }, JSON.stringify(row, null, 1))));
  if (!dialog.open) { dialog.showModal(); dialog.scrollTop = 0; document.getElementById("card-title").focus(); }
  else if (kept) { document.getElementById("against").focus(); dialog.scrollTop = scrolled; }
}
