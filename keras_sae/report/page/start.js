// The chosen model, the table, and the beginning.
function chooseModel(index) {
  state.model = index;
  byId("cards").replaceChildren(
    ...current().figures.map(({ key, name, text, says }) => {
      const card = element("div", {}, [
        element("dt", { textContent: name }),
        element("dd", { className: "value", textContent: text }),
        element("dd", { className: "says", textContent: says }),
      ]);
      card.dataset.figure = key;
      return card;
    }),
  );
  makeUnits();
  makeSamples();
  fillCurves();
  for (const row of document.querySelectorAll("#table tbody tr")) {
    row.classList.toggle("current", row.firstElementChild.dataset.value === current().name);
  }
}

// Missing values stay last in either direction.
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
  chooseModel(0);
  byId("model")?.addEventListener("change", (event) => chooseModel(Number(event.target.value)));
  if (byId("table")) sortable(byId("table"));
  const bars = source("activations", "activations");
  bars.selected.properties.indices.change.connect(() => {
    const [unit] = bars.selected.indices;
    if (unit !== undefined) goToUnit(unit);
  });
  document.documentElement.dataset.ready = "true";
}

start();
