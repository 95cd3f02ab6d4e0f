// The list of units, and the selected unit.
const grid = byId("grid");
const options = [];

const orders = {
  rate: (u) => (a, b) => u.rate[b] - u.rate[a] || u.mean[b] - u.mean[a],
  rare: (u) => (a, b) => u.rate[a] - u.rate[b] || u.mean[a] - u.mean[b],
  mean: (u) => (a, b) => u.mean[b] - u.mean[a],
  peak: (u) => (a, b) => u.peak[b] - u.peak[a],
  selective: (u) => (a, b) => u.shares[b][0] - u.shares[a][0],
  number: () => (a, b) => a - b,
};
const shown = {
  all: () => true,
  active: (u, unit) => u.rate[unit] > 0,
  dead: (u, unit) => u.rate[unit] === 0,
};

function showUnits() {
  const { units, shown: numbers, total } = current();
  const count = numbers.length;
  options.length = 0;
  // The units of a bounded code are never exactly zero, so every unit fires for every sample.
  const always = units.rate.every((share) => share === 1);
  const rates = always ? units.mean : units.rate;
  const most = Math.max(...rates) || 1;
  byId("rate-description").textContent = always
    ? "its mean activation, because no unit of this code is ever exactly zero"
    : "how often the unit fires, relative to the most frequent unit";
  for (let unit = 0; unit < count; unit++) {
    const rate = element("i");
    rate.style.width = `${(100 * rates[unit]) / most}%`;
    const option = element("div", { className: "option", tabIndex: -1 }, [
      image(`filters-${state.model}`, unit),
      element("span", { className: "rate" }, [rate]),
    ]);
    option.dataset.index = unit;
    option.setAttribute("role", "option");
    option.setAttribute("aria-selected", "false");
    option.setAttribute("aria-label", `Unit ${numbers[unit]}, fires for ${percent(units.rate[unit])} of the samples`);
    option.title = `unit ${numbers[unit]}: fires for ${percent(units.rate[unit])} of the samples`;
    option.classList.toggle("dead", units.rate[unit] === 0);
    options.push(option);
  }
  const wide = layout(`filters-${state.model}`)[2] > 2;
  grid.style.setProperty("--wide", wide ? "96px" : count > 128 ? "46px" : "62px");
  document.body.classList.toggle("wide-tiles", wide);
  byId("goto").max = total - 1;
  byId("limit").textContent = count < total
    ? `The page shows the ${count.toLocaleString("en")} units with the largest mean activation.`
    : "";
  arrange();
}

function arrange() {
  const { units, shown: numbers, total } = current();
  const wanted = Number(byId("class")?.value ?? -1);
  const keep = (unit) =>
    shown[byId("show").value](units, unit) &&
    (wanted < 0 || (units.rate[unit] > 0 && units.classes[unit][0] === wanted));
  const order = [...numbers.keys()].filter(keep).sort(orders[byId("sort").value](units));
  const none = element("p", { className: "empty", textContent: "No unit matches." });
  grid.replaceChildren(...(order.length ? order.map((unit) => options[unit]) : [none]));
  grid.scrollTop = 0;
  byId("count").textContent = `${order.length.toLocaleString("en")} of ${total.toLocaleString("en")} units`;
  if (order.length) selectUnit(order[0]);
}

function selectUnit(unit) {
  state.unit = unit;
  const { units, shown: numbers } = current();
  mark(grid, options[unit].isConnected ? options[unit] : null);
  byId("unit-name").textContent = `Unit ${numbers[unit]}`;
  show(byId("unit-filter"), `filters-${state.model}`, unit);
  facts(byId("unit-facts"), [
    ["frequency", percent(units.rate[unit])],
    ["mean activation", number(units.mean[unit])],
    ["peak activation", number(units.peak[unit])],
  ]);
  const width = (units.high[unit] - units.low[unit]) / units.counts[unit].length;
  const left = units.counts[unit].map((_, i) => units.low[unit] + i * width);
  fill("histogram", "histogram", { left, right: left.map((x) => x + width), count: units.counts[unit] });
  byId("unit-top").replaceChildren(...units.top[unit].map((s, i) => sampleButton(s, units.top_values[unit][i])));
  byId("unit-classes")?.replaceChildren(...units.classes[unit].map((c, i) => bar(c, units.shares[unit][i], units.shares[unit][0])));
}

function bar(index, share, most) {
  const length = element("i");
  length.style.width = percent(most ? share / most : 0);
  return element("li", {}, [
    element("span", { textContent: page.classes[index] }),
    length,
    element("b", { textContent: percent(share) }),
  ]);
}

// A sample's image and its activation. Samples whose code is on the page can be selected.
function sampleButton(sample, value) {
  const name = label(sample);
  const text = element("span", { textContent: number(value) + (name === null ? "" : ` · ${name}`) });
  const button = element("button", { type: "button", title: `sample ${sample}` }, [inputImage(sample), text]);
  button.disabled = !current().samples.includes(sample);
  button.addEventListener("click", () => goToSample(sample));
  return element("li", {}, [button]);
}

function goToUnit(unit) {
  if (!options[unit].isConnected) {
    byId("show").value = "all";
    if (byId("class")) byId("class").value = "-1";
    arrange();
  }
  selectUnit(unit);
  reveal(grid, options[unit]);
}

selectable(grid, selectUnit);
for (const id of ["sort", "show", "class"]) byId(id)?.addEventListener("change", arrange);
byId("goto").addEventListener("change", (event) => {
  const unit = current().shown.indexOf(event.target.valueAsNumber);
  if (unit >= 0) goToUnit(unit);
});
