// The explorer of units.
const grid = byId("grid");
const options = [];

const orders = {
  fires: (u) => (a, b) => u.fires[b] - u.fires[a] || u.mean[b] - u.mean[a],
  rare: (u) => (a, b) => u.fires[a] - u.fires[b] || u.mean[a] - u.mean[b],
  mean: (u) => (a, b) => u.mean[b] - u.mean[a],
  peak: (u) => (a, b) => u.peak[b] - u.peak[a],
  choosy: (u) => (a, b) => u.shares[b][0] - u.shares[a][0],
  number: () => (a, b) => a - b,
};
const shown = {
  all: () => true,
  alive: (u, unit) => u.fires[unit] > 0,
  silent: (u, unit) => u.fires[unit] === 0,
};

function makeUnits() {
  const { units, count } = current();
  options.length = 0;
  // A bounded code is never exactly zero: every unit fires for every sample.
  const always = units.fires.every((share) => share === 1);
  const rates = always ? units.mean : units.fires;
  const most = Math.max(...rates) || 1;
  byId("rate-says").textContent = always
    ? "how great its mean activation is, since no unit of this code is ever exactly zero"
    : "how often the unit fires, beside the one that fires most";
  for (let unit = 0; unit < count; unit++) {
    const rate = element("i");
    rate.style.width = `${(100 * rates[unit]) / most}%`;
    const option = element("div", { className: "option", tabIndex: -1 }, [
      picture(`atoms-${state.model}`, unit),
      element("span", { className: "rate" }, [rate]),
    ]);
    option.dataset.index = unit;
    option.setAttribute("role", "option");
    option.setAttribute("aria-selected", "false");
    option.setAttribute("aria-label", `Unit ${unit}, fires for ${percent(units.fires[unit])}`);
    option.title = `unit ${unit}: fires for ${percent(units.fires[unit])} of the samples`;
    option.classList.toggle("dead", units.fires[unit] === 0);
    options.push(option);
  }
  const wide = layout(`atoms-${state.model}`)[2] > 2;
  grid.style.setProperty("--wide", wide ? "96px" : count > 128 ? "46px" : "62px");
  document.body.classList.toggle("wide-tiles", wide);
  byId("goto").max = count - 1;
  arrange();
}

function arrange() {
  const { units, count } = current();
  const wanted = Number(byId("class")?.value ?? -1);
  const keep = (unit) =>
    shown[byId("show").value](units, unit) &&
    (wanted < 0 || (units.fires[unit] > 0 && units.classes[unit][0] === wanted));
  const order = [...Array(count).keys()].filter(keep).sort(orders[byId("sort").value](units));
  const none = element("p", { className: "empty", textContent: "No unit is like this." });
  grid.replaceChildren(...(order.length ? order.map((unit) => options[unit]) : [none]));
  grid.scrollTop = 0;
  byId("count").textContent = `${order.length.toLocaleString("en")} of ${count.toLocaleString("en")} units`;
  if (order.length) chooseUnit(order[0]);
}

function chooseUnit(unit) {
  state.unit = unit;
  const { units } = current();
  mark(grid, options[unit].isConnected ? options[unit] : null);
  byId("unit-name").textContent = `Unit ${unit}`;
  show(byId("unit-atom"), `atoms-${state.model}`, unit);
  facts(byId("unit-facts"), [
    ["fires for", percent(units.fires[unit])],
    ["mean", number(units.mean[unit])],
    ["strongest", number(units.peak[unit])],
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

// A picture of a sample with a number; one whose code is in the page can be chosen.
function sampleButton(sample, value) {
  const name = label(sample);
  const text = element("span", { textContent: number(value) + (name === null ? "" : ` · ${name}`) });
  const button = element("button", { type: "button", title: `sample ${sample}` }, [inputPicture(sample), text]);
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
  chooseUnit(unit);
  reveal(grid, options[unit]);
}

walkable(grid, chooseUnit);
for (const id of ["sort", "show", "class"]) byId(id)?.addEventListener("change", arrange);
byId("goto").addEventListener("change", (event) => {
  const unit = event.target.valueAsNumber;
  if (Number.isInteger(unit) && unit >= 0 && unit < current().count) goToUnit(unit);
});
