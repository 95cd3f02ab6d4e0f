// The selected model, the table, and the start of the page.
function selectModel(index) {
  state.model = index;
  byId("cards").replaceChildren(
    ...current().metrics.map(({ key, name, text, description }) => {
      const card = element("div", {}, [
        element("dt", { textContent: name }),
        element("dd", { className: "value", textContent: text }),
        element("dd", { className: "description", textContent: description }),
      ]);
      card.dataset.metric = key;
      return card;
    }),
  );
  showUnits();
  showSamples();
  fillCurves();
  for (const row of document.querySelectorAll("#table tbody tr")) {
    row.classList.toggle("current", row.firstElementChild.dataset.value === current().name);
  }
}

// Missing values come last in both sort directions.
function compareCells(a, b, direction) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const numbers = [Number(a), Number(b)];
  return direction * (numbers.some(Number.isNaN) ? a.localeCompare(b) : numbers[0] - numbers[1]);
}

function sortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.firstElementChild.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value;
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => compareCells(value(a), value(b), up ? 1 : -1));
      table.tBodies[0].append(...rows);
    });
  });
}

async function start() {
  await drawCharts();
  selectModel(0);
  byId("model")?.addEventListener("change", (event) => selectModel(Number(event.target.value)));
  if (byId("table")) sortable(byId("table"));
  const bars = source("activations", "activations");
  bars.selected.properties.indices.change.connect(() => {
    const [unit] = bars.selected.indices;
    if (unit !== undefined) goToUnit(unit);
  });
  document.documentElement.dataset.ready = "true";
}

start();
