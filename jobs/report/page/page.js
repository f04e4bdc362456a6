// The page's behaviour: unpack the data, filter it, and show it as a table and as figures.
// All that is shown comes from the data in this page; names in it are set as text, never as HTML.

const MOST_TOLD = 30; // numbers of a figure that are read aloud
const LETTER_PX = 6.4; // of the label of a row; capitals are wider, for which there is some room more
const FIRST_ROWS = 25; // of the table, until all are asked for
const byId = (id) => document.getElementById(id);
const { main, figures, columns, filters } = JSON.parse(byId("figure-specs").textContent);
const { precisions, mostPanels, shortened } = JSON.parse(byId("look").textContent);

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const sets = await new Response(stream).json();
  return Object.fromEntries(
    Object.entries(sets).map(([name, { count, same, columns }]) => [
      name,
      Array.from({ length: count }, (_, row) => {
        const record = { ...same };
        for (const field in columns) record[field] = columns[field][row];
        return record;
      }),
    ]),
  );
}

// Of each precision its mark, as in the figures.
const PATHS = {
  circle: "M8 2a6 6 0 1 0 .01 0z",
  cross: "M6 1h4v5h5v4h-5v5H6v-5H1V6h5z",
  square: "M2.5 2.5h11v11h-11z",
  diamond: "M8 1l6 7-6 7-6-7z",
  "triangle-up": "M8 2l7 12H1z",
};

function swatch(colour, shape = "square") {
  const made = make("span", { className: "swatch", ariaHidden: "true" });
  made.innerHTML = `<svg viewBox="0 0 16 16" width="100%" height="100%"><path d="${PATHS[shape]}"/></svg>`;
  made.querySelector("path").setAttribute("fill", colour);
  return made;
}

// ---- filters: sets of GPUs and precisions, and one value or any of each other field

const chosen = { gpu: null, precision: null };
const passes = (record) =>
  Object.entries(chosen).every(([field, wanted]) =>
    wanted === null || (wanted instanceof Set ? wanted.has(record[field]) : String(record[field]) === wanted),
  );

function chips(field, title, values) {
  if (values.length < 2) return [];
  chosen[field] = new Set(values);
  const boxes = values.map((value) => {
    const box = make("input", { type: "checkbox", checked: true, value });
    box.addEventListener("change", () => {
      chosen[field][box.checked ? "add" : "delete"](value);
      changed();
    });
    const mark = field === "precision" && precisions[value] ? [swatch(...precisions[value])] : [];
    return make("label", { className: "chip" }, box, ...mark, value);
  });
  return [make("fieldset", {}, make("legend", {}, title), ...boxes)];
}

function choice(field, title, values) {
  if (values.length < 2) return [];
  const list = make("select", {}, new Option("all", ""), ...values.map((value) => new Option(value, value)));
  list.addEventListener("change", () => {
    chosen[field] = list.value || null;
    changed();
  });
  return [make("label", {}, title, list)];
}

function showFilters(records) {
  const every = (field) => [...new Set(records.map((record) => record[field]))].filter((value) => value != null);
  byId("filters").append(
    ...filters.flatMap(({ field, title, many }) => (many ? chips : choice)(field, title, every(field))),
  );
  byId("filters").hidden = !byId("filters").children.length;
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
}

// ---- the table

const sorting = { key: null, down: false };
let all = false;

function compare(a, b) {
  const [x, y] = [a[sorting.key], b[sorting.key]];
  if (x == null || y == null) return (x == null) - (y == null); // not measured comes last, both ways
  const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
  return sorting.down ? -order : order;
}

function showHeads() {
  const cells = byId("rows").tHead.rows[0].cells;
  columns.forEach(({ key, title }, index) => {
    const button = make("button", { type: "button" }, title);
    cells[index].replaceChildren(button);
    button.addEventListener("click", () => {
      sorting.down = sorting.key === key && !sorting.down;
      sorting.key = key;
      for (const cell of cells) cell.removeAttribute("aria-sort");
      cells[index].setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
      showRows();
    });
  });
}

function showRows() {
  const shown = sets[main].filter(passes);
  if (sorting.key) shown.sort(compare);
  const some = all ? shown : shown.slice(0, FIRST_ROWS);
  const lines = some.map((record) =>
    make("tr", {}, ...columns.map(({ style }, index) => {
      const cell = make("td", { className: style }, record.cells[index]);
      if (style === "judged") cell.classList.add(record.outcome === "OK" ? record.verdict : "failed");
      return cell;
    })),
  );
  byId("rows").tBodies[0].replaceChildren(...lines);
  const of = shown.length === sets[main].length ? "" : ` of ${sets[main].length}`;
  byId("count").textContent = `${some.length < shown.length ? `${some.length} of ` : ""}${shown.length}${of} rows`;
  byId("all").hidden = some.length === shown.length;
}

// ---- the figures

const CONFIG = {
  background: null,
  font: "system-ui, sans-serif",
  view: { stroke: null },
  padding: { left: 4, top: 5, right: 16, bottom: 5 }, // a label at the right end needs some
  axis: {
    labelColor: "currentColor", titleColor: "currentColor", gridColor: "currentColor", gridOpacity: 0.12,
    domainColor: "currentColor", domainOpacity: 0.4, tickColor: "currentColor", tickOpacity: 0.4,
    labelFontSize: 11, titleFontSize: 12, titleFontWeight: "normal",
  },
};

function panelsOf(figure) {
  const panels = new Map();
  for (const record of sets[figure.sets[0]]) {
    if (!passes(record) || figure.needs.some((field) => record[field] == null)) continue;
    const text = record[figure.panel];
    if (!panels.has(text)) panels.set(text, []);
    panels.get(text).push(record);
  }
  const several = ([, records]) => new Set(records.map((record) => record[figure.varies])).size > 1;
  return [...panels].filter((panel) => !figure.varies || several(panel));
}

function showLegend(figure, panels) {
  const used = new Set(panels.flatMap(([, records]) => records.map((record) => record.precision)));
  const [field] = figure.told_by;
  const isSeen = ([text], index) => panels.some(([, records]) => records.some((record) =>
    (figure.told_by.length > 1 ? record[figure.told_by[index]] > 0 : record[field] === text)));
  const marks = (field ? Object.entries(figure.legend).filter(isSeen)
    : Object.entries(precisions).filter(([name]) => used.has(name))).map(([name, mark]) => [name, swatch(...mark)]);
  const list = byId(`figure-${figure.name}`).querySelector(".legend");
  list.replaceChildren(...marks.map(([text, mark]) => make("li", {}, mark, text)));
  list.hidden = !marks.length;
}

// For who does not see: one image with its numbers, in the place of a hundred marks.
function describe(chart, title, figure, records) {
  const field = figure.needs[0];
  const numbers = records.filter((record) => typeof record[field] === "number").slice(0, MOST_TOLD)
    .map((record) => `${record[figure.row ?? "cell"]} ${Number(record[field].toPrecision(3))}`);
  const image = chart.querySelector(".chart-wrapper");
  image.setAttribute("role", "img");
  image.setAttribute("aria-label", `${title}: ${numbers.join(", ") || "see the table above"}`);
  chart.querySelector("svg.marks").setAttribute("aria-hidden", "true");
  chart.querySelector("summary").setAttribute("aria-label", `Save this figure: ${title}`);
}

async function showFigure(figure, isCurrent) {
  const place = byId(`figure-${figure.name}`);
  const panels = panelsOf(figure);
  const drawn = panels.slice(0, mostPanels);
  showLegend(figure, drawn);
  place.querySelector(".shown").textContent =
    panels.length === 0 ? "Nothing of what is chosen has these numbers."
      : drawn.length < panels.length ? `${drawn.length} of ${panels.length} panels; choose above to see others.` : "";
  const charts = drawn.map(([text]) => {
    const chart = make("div", { className: "chart" });
    return [chart, make("div", { className: "panel" }, make("h4", {}, text), chart)];
  });
  place.querySelector(".panels").dataset.count = drawn.length;
  place.querySelector(".panels").replaceChildren(...charts.map(([, panel]) => panel));
  for (const [index, [text, records]] of drawn.entries()) {
    const kinds = new Set(records.map((record) => record.precision));
    const others = figure.sets.slice(1).map((name) => [
      name, sets[name].filter((record) => record[figure.panel] === text && kinds.has(record.precision)),
    ]);
    const datasets = Object.fromEntries([[figure.sets[0], records], ...others]);
    // Vega-Lite warns of a height that is a step beside a width that is the container's.
    const rows = new Set(records.map((record) => record[figure.row])).size;
    const height = figure.row ? rows * figure.spec.height.step : figure.spec.height;
    const spec = { ...figure.spec, width: "container", height, datasets };
    if (!isCurrent()) return;
    const limit = Math.min(180, 0.38 * charts[index][0].clientWidth);
    const labelExpr = shortened.replaceAll("LETTERS", Math.floor(limit / LETTER_PX));
    const view = await vegaEmbed(charts[index][0], spec, {
      renderer: "svg", ast: true, config: { ...CONFIG, axisY: { labelLimit: 1.3 * limit, labelExpr } }, downloadFileName: `tensorgap-${figure.name}`,
      actions: { export: true, source: false, compiled: false, editor: false },
      loader: { target: "_blank", load: () => Promise.reject(new Error("this page loads nothing")) },
    });
    views.push(view);
    describe(charts[index][0], `${figure.title}, ${text}`, figure, records);
  }
}

let version = 0;
let views = []; // each listens to the window until it is let go
async function showFigures() {
  const mine = ++version;
  document.body.dataset.drawn = "no";
  for (const view of views) view.finalize();
  views = [];
  for (const figure of figures) {
    await showFigure(figure, () => mine === version);
    if (mine !== version) return;
  }
  document.body.dataset.drawn = "yes";
}

function changed() {
  showRows();
  showFigures();
}

const sets = await unpacked(byId("data").textContent);
showFilters(sets[main]);
showHeads();
byId("all").addEventListener("click", () => {
  all = true;
  showRows();
});
changed();
