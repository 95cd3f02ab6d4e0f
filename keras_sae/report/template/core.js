// The page's data, images from the sheets, and lists that respond to arrow keys.
const page = JSON.parse(document.getElementById("data").textContent);
const plots = JSON.parse(document.getElementById("charts").textContent);
const state = { model: 0, unit: 0, sample: 0 };
const byId = (id) => document.getElementById(id);
const tiles = new Map(page.inputs.map((sample, tile) => [sample, tile]));
const percent = (value) => `${(100 * value).toFixed(1)}%`;
const number = (value) => (value === null ? "–" : Number(value.toPrecision(3)).toString());
const current = () => page.models[state.model];

function element(kind, properties = {}, children = []) {
  const node = Object.assign(document.createElement(kind), properties);
  node.append(...children);
  return node;
}

// A sheet is one background image; its position selects the tile.
const layouts = new Map();
function layout(name) {
  if (!layouts.has(name)) {
    const probe = document.body.appendChild(element("div", { className: `sheet-${name}` }));
    const style = getComputedStyle(probe);
    layouts.set(name, ["--columns", "--rows", "--aspect"].map((p) => Number(style.getPropertyValue(p))));
    probe.remove();
  }
  return layouts.get(name);
}

function show(target, sheet, tile) {
  const [columns, rows] = layout(sheet);
  const part = (index, count) => (count > 1 ? (100 * index) / (count - 1) : 0);
  const large = target.classList.contains("large") ? " large" : "";
  target.className = `tile sheet-${sheet}${large}`;
  target.style.backgroundPosition = `${part(tile % columns, columns)}% ${part(Math.floor(tile / columns), rows)}%`;
  return target;
}

const image = (sheet, tile) => show(element("div"), sheet, tile);
const inputImage = (sample) => image("inputs", tiles.get(sample));
const label = (sample) => (page.labels ? page.classes[page.labels[tiles.get(sample)]] : null);

function facts(target, entries) {
  target.replaceChildren(
    ...entries.flatMap(([name, value]) => [
      element("dt", { textContent: name }),
      element("dd", { textContent: value }),
    ]),
  );
}

function mark(box, option) {
  for (const old of box.querySelectorAll('[aria-selected="true"]')) {
    old.setAttribute("aria-selected", "false");
    old.tabIndex = -1;
  }
  option?.setAttribute("aria-selected", "true");
  if (option) option.tabIndex = 0;
}

function reveal(box, option) {
  if (option.offsetTop < box.scrollTop || option.offsetTop + option.offsetHeight > box.scrollTop + box.clientHeight) {
    box.scrollTop = option.offsetTop - box.clientHeight / 2;
  }
}

function perRow(options) {
  const next = options.findIndex((option) => option.offsetTop > options[0].offsetTop);
  return next < 0 ? options.length : next;
}

const steps = {
  ArrowRight: (at) => at + 1,
  ArrowLeft: (at) => at - 1,
  ArrowDown: (at, row) => at + row,
  ArrowUp: (at, row) => at - row,
  PageDown: (at, row) => at + 5 * row,
  PageUp: (at, row) => at - 5 * row,
  Home: () => 0,
  End: (at, row, last) => last,
};

// Only the selected option is in the tab order; arrow keys select its neighbors.
function selectable(box, select) {
  box.addEventListener("click", (event) => {
    const option = event.target.closest(".option");
    if (option) select(Number(option.dataset.index));
  });
  box.addEventListener("keydown", (event) => {
    const options = [...box.querySelectorAll(".option")];
    if (!(event.key in steps) || !options.length) return;
    event.preventDefault();
    const at = options.findIndex((option) => option.getAttribute("aria-selected") === "true");
    const last = options.length - 1;
    const to = steps[event.key](at, perRow(options), last);
    const option = options[Math.min(Math.max(to, 0), last)];
    select(Number(option.dataset.index));
    option.focus({ preventScroll: true });
    reveal(box, option);
  });
}
