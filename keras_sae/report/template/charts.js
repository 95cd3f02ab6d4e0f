// Bokeh draws the charts. This script fills their data sources and sets their colors.
const views = {};
const colors = {
  axis_label_text_color: "--muted",
  major_label_text_color: "--muted",
  axis_line_color: "--line",
  major_tick_line_color: "--line",
  minor_tick_line_color: null,
  grid_line_color: "--line",
  label_text_color: "--ink",
  text_color: "--ink",
  outline_line_color: null,
  border_fill_color: "--panel",
  border_line_color: null,
  background_fill_color: "--panel",
};
const fonts = { axis_label_text_font_style: "normal", major_label_text_font_size: "11px", axis_label_text_font_size: "12px", label_text_font_size: "11px" };

function paint() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => (name ? style.getPropertyValue(name).trim() : null);
  for (const root of Object.values(views)) {
    for (const model of root.references()) {
      const has = (property) => property in model.properties;
      for (const [property, name] of Object.entries(colors)) {
        const grid = property === "grid_line_color" && model.dimension === 0;
        if (has(property) && !grid) model.setv({ [property]: color(name) });
      }
      for (const [property, value] of Object.entries(fonts)) {
        if (has(property)) model.setv({ [property]: value });
      }
    }
  }
}

async function embed(name, target, item) {
  const embedded = await Bokeh.embed.embed_item({ ...item, target_id: target });
  views[name] = (embedded.roots ?? embedded)[0].model;
}

async function drawCharts() {
  const entries = Object.entries(plots.charts).map(([name, item]) => [name, `chart-${name}`, item]);
  Object.entries(plots.curves).forEach(([name, item], i) => entries.push([`curve:${name}`, `curve-${i}`, item]));
  await Promise.all(entries.map((entry) => embed(...entry)));
  paint();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
}

function source(view, name) {
  for (const model of views[view].references()) if (model.name === name && "data" in model) return model;
  throw new Error(`The chart ${view} has no source ${name}.`);
}

function fill(view, name, data) {
  source(view, name).data = data;
}

function fillCurves() {
  const logged = Object.keys(current().history);
  byId("validated").hidden = !logged.some((key) => key.startsWith("val_"));
  Object.keys(plots.curves).forEach((panel, i) => {
    byId(`curve-${i}`).hidden = !(panel in current().history);
    const line = (logs, key) => {
      const value = logs[key] ?? [];
      return { epoch: value.map((_, i) => i + 1), value };
    };
    const others = page.models.filter((_, i) => i !== state.model).map((m) => line(m.history, panel));
    fill(`curve:${panel}`, "others", { xs: others.map((o) => o.epoch), ys: others.map((o) => o.value) });
    fill(`curve:${panel}`, "training", line(current().history, panel));
    fill(`curve:${panel}`, "validation", line(current().history, `val_${panel}`));
  });
}
