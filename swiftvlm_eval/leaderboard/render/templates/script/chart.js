// The pictures: percent of vanilla against cost, one for each group; rows as dots where nothing counts the cost.
const lights = (ids) => ({
  pointerenter: () => light(ids), pointerleave: () => light([]), focusin: () => light(ids), focusout: () => light([]),
});

// Rows and points of the same method light up together; the other points fade.
function light(ids) {
  const live = document.querySelector(".board:not([hidden]) .live");
  if (!live) return;
  live.classList.toggle("lit", ids.length > 0);
  for (const each of live.querySelectorAll("[data-ids]")) {
    each.classList.toggle("hot", each.dataset.ids.split(" ").some((id) => ids.includes(id)));
  }
}

function ticks(low, high, wanted) {
  const rough = (high - low) / wanted || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function front(points) {
  const found = [];
  for (const each of [...points].sort((a, b) => a.x - b.x || b.y - a.y)) {
    if (!found.length || each.y > found[found.length - 1].y) found.push(each);
  }
  return found;
}

function group_title(key) {
  const [title, members] = board().groups[key];
  const alone = members.length === 1 && column_of(members[0]);
  return alone ? alone.title : title;
}

function points_of(key, axis) {
  return sections_shown().filter((section) => !section.vanilla).flatMap((section) => section.rows.filter(matches).map((row) => {
    const cell = get(row.cells, key), x = get(row.figures, axis);
    return cell && cell.r !== undefined && x !== undefined
      ? { row, section, x, y: cell.r, low: cell.l, high: cell.h, mark: cell.m || "" } : null;
  })).filter(Boolean);
}

function frame(width, height, title, x, y, x_title, x_ticks, y_ticks) {
  const [left, right, top, bottom] = [x.range[0], x.range[1], y.range[1], y.range[0]];
  const across = y_ticks.found.map((at) => [
    s("line", { class: "grid", x1: left, x2: right, y1: y(at), y2: y(at) }),
    s("text", { class: "tick", x: left - 6, y: y(at) + 4, "text-anchor": "end" }, number(at, y_ticks.digits))]);
  const down = x_ticks.found.map((at) => [
    s("line", { class: "grid", x1: x(at), x2: x(at), y1: top, y2: bottom }),
    s("text", { class: "tick", x: x(at), y: bottom + 15, "text-anchor": "middle" }, number(at, x_ticks.digits))]);
  return [across, down, s("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }),
    s("text", { class: "name", x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }, x_title),
    s("text", { class: "title", x: 2, y: 13 }, title)];
}

function linear(from, to, start, end) {
  const scale = (value) => start + ((value - from) * (end - start)) / (to - from || 1);
  return Object.assign(scale, { range: [start, end] });
}

function scatter(key, axis, width, height) {
  const points = points_of(key, axis.key), base = vanilla_rows()[0];
  const title = `${group_title(key)}, % of vanilla`;
  if (!points.length) return h("figure", { class: "chart" }, h("p", { class: "empty" }, `${title}: nothing to draw`));
  const xs = points.map((point) => point.x), ys = points.flatMap((point) => [point.y, point.low, point.high]).filter((y) => y !== undefined);
  const pad = (Math.max(...xs) - Math.min(...xs)) * 0.06 || Math.max(...xs) * 0.05 || 1;
  const [from, to] = [Math.min(...xs) - pad, Math.max(...xs) + pad];
  const low = Math.max(Math.min(...ys), fence(points.map((point) => point.y))), high = Math.max(100, ...ys), room = (high - low) * 0.06;
  const x = linear(from, to, 36, width - 14), y = linear(low - room, high + room, height - 36, 24);
  const picture = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", tabindex: "0", "data-focus": `chart-${key}`,
    "aria-label": `${title}, against ${axis.title}: ${points.length} points; arrow keys go through them, Enter opens one` },
    frame(width, height, title, x, y, axis.title, ticks(from, to, Math.max(3, width / 90)), ticks(low - room, high + room, 5)),
    s("line", { class: "hundred", x1: 36, x2: width - 14, y1: y(100), y2: y(100) }));
  if (base && axis.key in base.figures) {
    const text = axis.key === "cost" ? "vanilla 1.00 ×" : `vanilla ${brief(base.figures[axis.key])}`;
    picture.append(s("text", { class: "edge", x: width - 14, y: y(100) - 5, "text-anchor": "end" }, `${text} →`));
  }
  const at = (value) => Math.min(y(value), height - 42);  // what lies below stands at the edge, with its number
  picture.append(steps(points, x, at), ...threads(points, x, at));
  for (const point of points) point.below = y(point.y) > height - 42;
  const labels = placed(points, x, at, width, height);
  const drawn = [...points].sort((a, b) => a.y - b.y).map((point) => mark_point(point, x, at, axis, labels.get(point.row.id)));
  picture.append(...drawn);
  walk(picture, drawn);
  return h("figure", { class: "chart" }, picture);
}

function steps(points, x, y) {
  const best = front(points.filter((point) => point.mark !== "off_budget"));
  const path = best.map((point, place) => (place ? `H${x(point.x)}V${y(point.y)}` : `M${x(point.x)},${y(point.y)}`)).join("");
  return s("path", { class: "front", d: path });
}

// A thin line through the budgets of one method with the same options.
function threads(points, x, y) {
  if (budget() !== "all") return [];
  const lines = new Map();
  for (const point of points) lines.set(line_of(point.row), [...(lines.get(line_of(point.row)) || []), point]);
  return [...lines.values()].filter((own) => own.length > 1).map((own) => {
    const path = [...own].sort((a, b) => a.x - b.x).map((point, place) => `${place ? "L" : "M"}${x(point.x)},${y(point.y)}`).join("");
    return s("path", { class: `thread c-${own[0].row.look[0]}`, d: path, "data-ids": own.map((point) => point.row.id).join(" ") });
  });
}

function spoken(point, axis) {
  const cost = axis.key === "cost" ? `${number(point.x, 3)} × vanilla's operations` : `${brief(point.x)} ms`;
  const mark = { best: "; best of its budget", tied: "; not different from the best", off_budget: "; off budget" }[point.mark] || "";
  return [`${point.row.label}, budget ${point.section.short}`, `${number(point.y, 1)} % ${span(point.low, point.high, 1)}${mark}`, cost];
}

function mark_point(point, x, y, axis, label) {
  const [colour, marker, hollow] = point.row.look, words = spoken(point, axis);
  const node = s("g", { class: `point ${point.mark}`, "data-ids": point.row.id, tabindex: "-1", role: "button", "aria-label": words.join(": "),
    transform: `translate(${x(point.x)},${y(point.y)})`,
    on: { ...lights([point.row.id]), click: () => change({ card: point.row.id, against: "" }) } },
    point.low === undefined ? null : s("line", { class: `whisker c-${colour}`, y1: y(point.low) - y(point.y), y2: y(point.high) - y(point.y) }),
    s("circle", { class: "reach", r: 9 }),
    s("path", { class: `c-${colour}${hollow ? " hollow" : ""}`, d: DATA.markers[marker] }),
    s("text", { class: `label${label.free ? "" : " crowded"}`, x: label.dx, y: label.dy, "text-anchor": label.anchor }, label_of(point)));
  const show = () => hint(node, words);
  for (const event of ["pointerenter", "focus"]) node.addEventListener(event, show);
  for (const event of ["pointerleave", "blur"]) node.addEventListener(event, () => hint(null));
  return node;
}

// The numbers of a point, beside it.
function hint(node, words) {
  document.querySelectorAll(".tip.point-tip").forEach((old) => old.remove());
  if (!node) return;
  const box = node.querySelector(".reach").getBoundingClientRect();
  const tip = h("div", { class: "tip point-tip", "aria-hidden": "true" }, words.map((each, place) => h(place ? "div" : "b", {}, each)));
  document.body.append(tip);
  const left = Math.max(8, Math.min(box.left + 22, document.documentElement.clientWidth - tip.offsetWidth - 8));
  const above = box.top - tip.offsetHeight - 8;
  Object.assign(tip.style, { left: `${left + scrollX}px`, top: `${(above > 0 ? above : box.bottom + 8) + scrollY}px` });
}

const label_of = (point) => `${cut(point.row.name, 24)}${point.below ? ` ${number(point.y, 0)} ↓` : ""}`;

// Where single rows lie far below the others: the lower fence of a box plot, so that they do not press the others together.
function fence(values) {
  const sorted = [...values].sort((a, b) => a - b), at = (share) => sorted[Math.floor(share * (sorted.length - 1))];
  return at(0.25) - 1.5 * (at(0.75) - at(0.25)) - 1;
}

// Labels beside their points where they overlap nothing; the best first. The others appear with their point.
function placed(points, x, y, width, height) {
  const boxes = points.map((point) => [x(point.x) - 5, y(point.y) - 5, x(point.x) + 5, y(point.y) + 5]);
  boxes.push([width - 110, y(100) - 16, width, y(100) - 4]);  // vanilla's arrow
  const clash = (box) => box[0] < 34 || box[2] > width || box[1] < 20 || box[3] > height - 34 ||
    boxes.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]);
  const found = new Map();
  for (const point of [...points].sort((a, b) => b.y - a.y)) {
    const wide = label_of(point).length * 6.1, [px, py] = [x(point.x), y(point.y)];
    const places = [
      { dx: 8, dy: 4, anchor: "start", box: [px + 6, py - 6, px + 8 + wide, py + 6] },
      { dx: -8, dy: 4, anchor: "end", box: [px - 8 - wide, py - 6, px - 6, py + 6] },
      { dx: 6, dy: -6, anchor: "start", box: [px + 5, py - 16, px + 6 + wide, py - 4] },
      { dx: 6, dy: 14, anchor: "start", box: [px + 5, py + 4, px + 6 + wide, py + 16] },
      { dx: 0, dy: -9, anchor: "middle", box: [px - wide / 2, py - 19, px + wide / 2, py - 7] },
      { dx: 0, dy: 17, anchor: "middle", box: [px - wide / 2, py + 7, px + wide / 2, py + 19] }];
    const free = places.find((place) => !clash(place.box));
    if (free) boxes.push(free.box);
    const fits = px + 8 + wide < width ? places[0] : places[1];
    found.set(point.row.id, { ...(free || fits), free: Boolean(free) });
  }
  return found;
}

// Arrow keys go through the points from left to right; Enter opens the card.
function walk(picture, nodes) {
  const at = (node) => Number(/\(([-\d.e]+)/.exec(node.getAttribute("transform"))[1]);
  const line = [...nodes].sort((a, b) => at(a) - at(b));
  picture.addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key], place = line.indexOf(document.activeElement);
    if (way) {
      event.preventDefault();
      line[(place + way + line.length) % line.length].focus();
    } else if (event.key === "Enter" && place >= 0) change({ card: line[place].dataset.ids, against: "" });
  });
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// One line a row, for boards whose rows carry no cost.
function dots(column, width) {
  const rows = sections_shown().flatMap((section) => (section.vanilla ? section.rows : ordered(section.rows.filter(matches))).map((row) => ({ row, section })))
    .filter(({ row }) => value_of(row, column) !== null);
  if (!rows.length) return null;
  const values = rows.map(({ row }) => value_of(row, column)), titled = ({ row, section }) => (budget() === "all" && !section.vanilla ? `${row.label} · ${section.short}` : row.label);
  const names = Math.min(190, 16 + 6.2 * Math.max(...rows.map((each) => titled(each).length)));
  const height = 50 + 22 * rows.length, from = column.kind === "figure" ? 0 : Math.min(...values) * 0.9, to = Math.max(...values) * 1.06;
  const x = linear(from, to, names, width - 14), y = linear(0, rows.length, 24, height - 30);
  const unit = column.kind === "figure" ? column.unit : state.show === "score" && column.kind === "score" ? "" : "% of vanilla";
  const marks = ticks(from, to, Math.max(3, (width - names) / 70));
  const lines = rows.map(({ row, section }, place) => {
    const [colour, marker, hollow] = row.look, at = y(place + 0.5);
    return s("g", { class: "point", "data-ids": row.id, on: { ...lights([row.id]), click: () => change({ card: row.id, against: "" }) } },
      s("title", {}, `${row.label}, ${section.title}: ${text_of(row, column)} ${unit}`),
      s("text", { class: "tick", x: names - 10, y: at + 4, "text-anchor": "end" }, cut(titled({ row, section }), 28)),
      s("line", { class: `stem c-${colour}`, x1: names, x2: x(value_of(row, column)), y1: at, y2: at }),
      s("g", { transform: `translate(${x(value_of(row, column))},${at})` }, s("path", { class: `c-${colour}${hollow ? " hollow" : ""}`, d: DATA.markers[marker] })));
  });
  const grid = marks.found.map((at) => [s("line", { class: "grid", x1: x(at), x2: x(at), y1: 24, y2: height - 30 }),
    s("text", { class: "tick", x: x(at), y: height - 16, "text-anchor": "middle" }, number(at, marks.digits))]);
  return h("figure", { class: "chart" }, s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${column.title}, one line a row` },
    grid, lines, s("text", { class: "title", x: 2, y: 13 }, `${column.title}${unit ? `, ${unit}` : ""}`)));
}

function pictures(width) {
  const of = board(), axis = of.costs.find((each) => each.key === state.axis) || of.costs[0];
  const groups = Object.keys(of.groups), side = width > 712 && groups.length > 1;
  const wide = side ? (width - 16) / 2 : width;
  if (axis && groups.length) return groups.map((key) => scatter(key, axis, wide, side ? 250 : Math.max(250, Math.min(310, wide * 0.68))));
  const shown = (groups.length ? groups.map((key) => column_of(of.groups[key][1].length === 1 ? of.groups[key][1][0] : key)) : of.columns.filter((column) => column.better !== "none")).slice(0, 2);
  return shown.map((column) => dots(column, wide));
}
