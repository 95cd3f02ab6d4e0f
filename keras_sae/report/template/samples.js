// Reconstructions, and the code of the selected sample.
const strip = byId("strip");
let codes = null;

function showSamples() {
  const { samples, errors } = current();
  const bytes = Uint8Array.from(atob(current().codes), (c) => c.charCodeAt(0));
  codes = new Float32Array(bytes.buffer);
  const error = new Map(samples.map((sample, i) => [sample, errors[i]]));
  for (const end of ["worst", "best"]) {
    byId(end).replaceChildren(...current()[end].map((sample) => pair(sample, error.get(sample))));
  }
  strip.style.setProperty("--wide", layout("inputs")[2] > 2 ? "96px" : "40px");
  strip.replaceChildren(...samples.map(sampleOption));
  selectSample(0);
}

function sampleOption(sample, index) {
  const option = element("div", { className: "option", tabIndex: -1, title: `sample ${sample}` }, [inputImage(sample)]);
  option.dataset.index = index;
  option.setAttribute("role", "option");
  option.setAttribute("aria-selected", "false");
  option.setAttribute("aria-label", `Sample ${sample}`);
  return option;
}

function pair(sample, error) {
  const reconstruction = image(`reconstructions-${state.model}`, current().samples.indexOf(sample));
  const text = element("span", { textContent: number(error) });
  const button = element("button", { type: "button", title: `sample ${sample}` }, [inputImage(sample), reconstruction, text]);
  button.addEventListener("click", () => goToSample(sample));
  return element("li", {}, [button]);
}

function selectSample(index) {
  state.sample = index;
  const { samples, errors, active, shown: numbers, total } = current();
  const count = numbers.length;
  const sample = samples[index];
  const code = codes.subarray(index * count, (index + 1) * count);
  mark(strip, strip.children[index]);
  byId("sample-name").textContent = `Sample ${sample}`;
  show(byId("sample-input"), "inputs", tiles.get(sample));
  show(byId("sample-reconstruction"), `reconstructions-${state.model}`, index);
  const name = label(sample);
  facts(byId("sample-facts"), [
    ...(name === null ? [] : [["class", name]]),
    ["squared error", number(errors[index])],
    ["active units", `${active[index]} of ${total}`],
  ]);
  const unit = Array.from(code.keys());
  fill("activations", "activations", { unit: numbers, activation: Array.from(code) });
  const strongest = unit.filter((j) => code[j] !== 0).sort((a, b) => Math.abs(code[b]) - Math.abs(code[a]));
  byId("sample-units").replaceChildren(...strongest.slice(0, 24).map((j) => unitButton(j, code[j])));
}

function unitButton(unit, value) {
  const lines = [number(value), `unit ${current().shown[unit]}`].map((text) => element("span", { textContent: text }));
  const button = element("button", { type: "button" }, [image(`filters-${state.model}`, unit), ...lines]);
  button.addEventListener("click", () => {
    goToUnit(unit);
    byId("units").scrollIntoView();
  });
  return element("li", {}, [button]);
}

function goToSample(sample) {
  const index = current().samples.indexOf(sample);
  selectSample(index);
  reveal(strip, strip.children[index]);
  byId("sample").scrollIntoView();
}

selectable(strip, selectSample);
