// The heat map and the map. Both are drawn from numbers that a screen reader can reach as well.
import { along, el, fixed, roving, shorten } from "/ui/api.js";

const SVG = "http://www.w3.org/2000/svg";
const NUMBERS_SHOWN = 10;
const LABELS_SHOWN = 30;

/**
 * The cosine of every pair as a table: colour for the eye, numbers for the rest. The scale runs
 * from the lowest value there is, which is returned, to 1: some models never go below 0.5.
 */
export function heatMap(container, readout, texts, values) {
  const lowest = Math.min(...values.flat());
  const span = 1 - lowest || 1;
  const head = el("tr", {}, el("td"), ...texts.map((text, i) =>
    el("th", { scope: "col", title: text, "aria-label": `${i + 1}: ${shorten(text, 60)}` }, String(i + 1))));
  const rows = texts.map((text, i) => el("tr", {},
    el("th", { scope: "row", title: text }, el("b", {}, String(i + 1)), el("span", {}, text)),
    ...texts.map((_, j) => {
      const cell = el("td", { tabIndex: i || j ? -1 : 0 }, el("span", {}, fixed(values[i][j], 2)));
      cell.dataset.row = i;
      cell.dataset.column = j;
      cell.style.setProperty("--heat", `${((values[i][j] - lowest) / span) * 100}%`);
      return cell;
    })));
  const table = el("table", { className: "heat", role: "grid", "aria-label": "Cosine similarity of every pair of texts" },
    el("thead", {}, head), el("tbody", {}, ...rows));
  table.classList.toggle("dense", texts.length > NUMBERS_SHOWN);
  const tell = (event) => {
    const { row, column } = event.target.closest("td")?.dataset ?? {};
    if (row === undefined) return;
    readout.replaceChildren(
      el("b", {}, fixed(values[row][column], 4)),
      ` ${+row + 1} “${shorten(texts[row], 60)}” and ${+column + 1} “${shorten(texts[column], 60)}”`);
  };
  table.addEventListener("mouseover", tell);
  table.addEventListener("focusin", tell);
  const cells = [...table.querySelectorAll("td[data-row]")];
  roving(table, () => cells, (key, at, length) => {
    const n = texts.length;
    const column = at % n;
    return {
      ArrowRight: column < n - 1 ? at + 1 : at, ArrowLeft: column ? at - 1 : at,
      ArrowDown: at + n < length ? at + n : at, ArrowUp: at >= n ? at - n : at,
      Home: at - column, End: at - column + n - 1,
    }[key];
  });
  container.replaceChildren(table);
  return lowest;
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const overlap = (a, b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;

/** Where a label of this width may go around a point, best first. */
function places(x, y, width) {
  const h = 16;
  return [
    { x: x + 9, y: y - h / 2 }, { x: x - 9 - width, y: y - h / 2 },
    { x: x - width / 2, y: y - 9 - h }, { x: x - width / 2, y: y + 9 },
  ].map((place) => ({ ...place, w: width, h }));
}

/** The texts at their places: points are [x, y] in units of the embedding space. */
export function scatter(container, readout, texts, points) {
  const width = container.clientWidth;
  const height = Math.round(Math.max(240, Math.min(420, width * 0.7)));
  const margin = 28;
  const [lowX, highX, lowY, highY] = [0, 1].flatMap((k) => {
    const all = points.map((p) => p[k]);
    return [Math.min(...all), Math.max(...all)];
  });
  // One scale for both axes: distances on the map are to be compared.
  const scale = Math.min(
    (width - 2 * margin) / (highX - lowX || 1), (height - 2 * margin) / (highY - lowY || 1));
  const at = points.map(([x, y]) => [
    width / 2 + (x - (lowX + highX) / 2) * scale, height / 2 - (y - (lowY + highY) / 2) * scale]);
  const taken = at.map(([x, y]) => ({ x: x - 6, y: y - 6, w: 12, h: 12 }));
  const measure = document.createElement("canvas").getContext("2d");
  measure.font = `12px ${getComputedStyle(container).fontFamily}`;
  const free = (box, own) => box.x >= 0 && box.x + box.w <= width && box.y >= 0 &&
    box.y + box.h <= height && !taken.some((other, k) => k !== own && overlap(box, other));

  const marks = texts.map((text, i) => {
    const [x, y] = at[i];
    const group = svg("g", { role: "img", "aria-label": `${i + 1}: ${shorten(text, 120)}`, tabindex: i ? -1 : 0 },
      svg("circle", { cx: x, cy: y, r: 5 }));
    const wanted = texts.length <= LABELS_SHOWN ? [shorten(text, 28), shorten(text, 14), String(i + 1)] : [String(i + 1)];
    for (const label of wanted) {
      const box = places(x, y, measure.measureText(label).width + 4).find((one) => free(one, i));
      if (!box) continue;
      taken.push(box);
      const node = svg("text", { x: box.x + 2, y: box.y + 12 });
      node.textContent = label;
      group.append(node);
      break;
    }
    const tell = () => readout.replaceChildren(el("b", {}, String(i + 1)), ` ${shorten(text, 200)}`);
    group.addEventListener("mouseenter", tell);
    group.addEventListener("focus", tell);
    return group;
  });
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group",
    "aria-label": "Map of the texts" }, ...marks);
  roving(picture, () => marks, along);
  container.replaceChildren(picture);
}
