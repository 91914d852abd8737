"use strict";
const data = JSON.parse(document.getElementById("data").textContent);

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawing(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function levelColor(level, certainty) {
  const shades = data.colors[Math.max(0, Math.min(data.colors.length - 1, Math.round(level)))];
  return shades[Math.round(Math.max(0, Math.min(1, certainty)) * (shades.length - 1))];
}

/* The picture in large. */

const lightbox = document.getElementById("lightbox");
const montage = document.getElementById("montage");
let shownCard = null;

function show(card) {
  shownCard = card;
  const image = card.querySelector("img");
  const large = lightbox.querySelector("img");
  large.src = image.src;
  large.alt = image.alt;
  large.width = image.width;
  large.height = image.height;
  // Small images are enlarged, so that they are no stamps on the screen.
  large.style.width = `min(${Math.max(image.getAttribute("width"), 640)}px, 100%)`;
  lightbox.querySelector(".name").textContent = card.dataset.name;
  lightbox.querySelector(".facts").textContent = card.dataset.facts;
  const link = lightbox.querySelector("a");
  link.hidden = !card.dataset.link;
  if (card.dataset.link) link.href = card.dataset.link;
  if (!lightbox.open) lightbox.showModal();
}

function step(by) {
  const cards = [...montage.querySelectorAll("button")];
  show(cards[(cards.indexOf(shownCard) + by + cards.length) % cards.length]);
}

if (montage) {
  const cards = [...montage.querySelectorAll("button")];
  const rows = data.images.rows;
  for (const card of cards) {
    const overlay = rows[card.dataset.row].at(-1);
    card.dataset.link = overlay[0];
    card.addEventListener("click", () => show(card));
  }
  lightbox.querySelector(".close").addEventListener("click", () => lightbox.close());
  lightbox.querySelector(".previous").addEventListener("click", () => step(-1));
  lightbox.querySelector(".next").addEventListener("click", () => step(1));
  lightbox.addEventListener("click", (event) => {
    if (event.target === lightbox || event.target.tagName === "IMG") lightbox.close();
  });
  lightbox.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  lightbox.addEventListener("close", () => shownCard && shownCard.focus());
  for (const choice of document.querySelectorAll("input[name=ranking]")) {
    choice.addEventListener("change", () => {
      const byCertainty = choice.value === "certainty";
      const order = (a, b) =>
        byCertainty ? b.dataset.certainty - a.dataset.certainty : a.dataset.level - b.dataset.level;
      cards.sort((a, b) => order(a, b) || a.dataset.row - b.dataset.row);
      montage.append(...cards.map((card) => card.parentElement));
    });
  }
}

/* Tables: all rows are kept as numbers and words, and only those of one page are elements. */

const collator = new Intl.Collator(undefined, { numeric: true });

function cell(value, kind) {
  if (kind === "overlay") {
    const made = element("td", { class: "overlay" });
    const [address, row] = value;
    if (row >= 0) {
      const button = element("button", { type: "button", class: "plain" }, "show");
      button.addEventListener("click", () => show(montage.querySelector(`button[data-row="${row}"]`)));
      made.append(button, " ");
    }
    if (address) made.append(element("a", { href: address }, "PNG"));
    return made;
  }
  if (value === null || value === "") return element("td");
  if (kind === "level") {
    const chip = element("span", { class: "chip" }, String(value));
    chip.style.background = levelColor(value, 1);
    return element("td", { class: "number" }, chip);
  }
  if (kind === "number") {
    const text = Number.isInteger(Number(value)) && typeof value !== "number" ? value : shortNumber(value);
    return element("td", { class: "number" }, text);
  }
  return element("td", {}, String(value));
}

function shortNumber(value) {
  return Number.isInteger(value) && Math.abs(value) >= 1000 ? String(value) : String(Math.round(value * 100) / 100);
}

function sortedTable(place, table) {
  const rowsPerPage = Number(place.dataset.rows);
  const { columns, rows } = table;
  const head = element("tr");
  const body = element("tbody");
  const count = element("span", { class: "count", role: "status" });
  const filter = element("input", { type: "search", placeholder: "part of a name or word" });
  const back = element("button", { type: "button", class: "plain" }, "previous");
  const on = element("button", { type: "button", class: "plain" }, "next");
  let chosen = rows;
  let page = 0;
  let sorted = { column: -1, ascending: true };

  const words = columns.map((column, i) => [column[1], i]).filter(([kind]) => kind === "text").map(([, i]) => i);

  function draw() {
    const pages = Math.max(1, Math.ceil(chosen.length / rowsPerPage));
    page = Math.max(0, Math.min(page, pages - 1));
    const from = page * rowsPerPage;
    const part = chosen.slice(from, from + rowsPerPage);
    body.replaceChildren(
      ...part.map((row) => element("tr", {}, ...row.map((value, i) => cell(value, columns[i][1])))),
    );
    const total = chosen.length.toLocaleString("en");
    count.textContent = part.length
      ? `${(from + 1).toLocaleString("en")} to ${(from + part.length).toLocaleString("en")} of ${total}`
      : "none";
    back.disabled = page === 0;
    on.disabled = page === pages - 1;
    back.hidden = on.hidden = pages === 1;
  }

  function choose() {
    const wanted = filter.value.trim().toLowerCase();
    chosen = wanted
      ? rows.filter((row) => words.some((i) => String(row[i]).toLowerCase().includes(wanted)))
      : rows.slice();
    const { column, ascending } = sorted;
    if (column >= 0) {
      const numeric = columns[column][1] !== "text";
      const compare = numeric ? (a, b) => a - b : collator.compare;
      const empty = (value) => value === null || value === "";
      chosen.sort((one, other) => {
        const a = one[column];
        const b = other[column];
        // What has no value comes last, whichever way is sorted.
        if (empty(a) || empty(b)) return empty(a) - empty(b);
        return ascending ? compare(a, b) : compare(b, a);
      });
    }
    page = 0;
    draw();
  }

  columns.forEach(([title, kind], i) => {
    const header = element("th", { scope: "col" });
    if (kind === "number" || kind === "level") header.className = "number";
    if (kind === "overlay") {
      header.append(title);
    } else {
      const button = element("button", { type: "button", class: "sort" }, title);
      button.addEventListener("click", () => {
        sorted = { column: i, ascending: sorted.column === i ? !sorted.ascending : true };
        for (const other of head.children) other.removeAttribute("aria-sort");
        header.setAttribute("aria-sort", sorted.ascending ? "ascending" : "descending");
        choose();
      });
      header.append(button);
    }
    head.append(header);
  });
  filter.addEventListener("input", choose);
  back.addEventListener("click", () => { page -= 1; draw(); });
  on.addEventListener("click", () => { page += 1; draw(); });

  const tools = element("div", { class: "tools" });
  if (rows.length > 10) tools.append(element("label", {}, "Only rows with ", filter));
  tools.append(count, back, on);
  place.append(tools, element("div", { class: "wide" }, element("table", {}, element("thead", {}, head), body)));
  draw();
}

for (const place of document.querySelectorAll("[data-table]")) sortedTable(place, data[place.dataset.table]);

/* Focal series. */

const SERIES_AT_ONCE = 24;
const WIDTH = 260, HEIGHT = 120, LEFT = 22, RIGHT = 8, TOP = 10, BOTTOM = 20;

function curve([first, planes]) {
  const rows = data.planes.slice(first, first + planes);
  const [file, channel, time] = rows[0];
  const zs = rows.map((row) => row[3]);
  const lowest = Math.min(...zs), span = Math.max(1, Math.max(...zs) - lowest);
  const x = (z) => LEFT + ((z - lowest) / span) * (WIDTH - LEFT - RIGHT);
  const y = (level) => HEIGHT - BOTTOM - (level / (data.colors.length - 1)) * (HEIGHT - TOP - BOTTOM);
  const best = rows.find((row) => row[6]);
  const said = best
    ? `sharpest: z ${best[3]}, level ${best[4].toFixed(1)}`
    : "no plane is certain enough to name the sharpest";
  const svg = drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": said });
  for (const level of [0, 5, 10]) {
    svg.append(
      drawing("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(level), y2: y(level), class: "grid-line" }),
      drawing("text", { x: LEFT - 6, y: y(level) + 4, "text-anchor": "end" }, String(level)),
    );
  }
  for (const z of new Set([zs[0], zs.at(-1)])) {
    svg.append(drawing("text", { x: x(z), y: HEIGHT - 4, "text-anchor": "middle" }, String(z)));
  }
  if (best) {
    svg.append(drawing("line", { x1: x(best[3]), x2: x(best[3]), y1: TOP, y2: HEIGHT - BOTTOM, class: "best" }));
    if (x(best[3]) - x(zs[0]) > 16 && x(zs.at(-1)) - x(best[3]) > 16) {
      svg.append(drawing("text", { x: x(best[3]), y: HEIGHT - 4, "text-anchor": "middle", class: "strong" }, String(best[3])));
    }
  }
  svg.append(drawing("polyline", { points: rows.map((row) => `${x(row[3]).toFixed(1)},${y(row[4]).toFixed(1)}`).join(" ") }));
  const radius = planes > 40 ? 1.5 : 3.5;
  for (const row of rows) {
    const dot = drawing("circle", { cx: x(row[3]), cy: y(row[4]), r: row === best ? 5 : radius, fill: levelColor(row[4], row[5]) });
    if (row === best) dot.setAttribute("class", "sharpest");
    dot.append(drawing("title", {}, `z ${row[3]}: level ${row[4].toFixed(1)}, certainty ${row[5].toFixed(2)}`));
    svg.append(dot);
  }
  const name = [file, channel === "0" ? "" : channel, time ? `time ${time}` : ""].filter(Boolean).join(", ");
  return element("figure", { class: "series" }, svg, element("figcaption", {}, element("b", {}, name), element("br"), said));
}

const series = document.getElementById("series");
if (series) {
  const more = document.getElementById("more-series");
  let shown = 0;
  const add = () => {
    series.append(...data.stacks.slice(shown, shown + SERIES_AT_ONCE).map(curve));
    shown = Math.min(shown + SERIES_AT_ONCE, data.stacks.length);
    more.hidden = shown === data.stacks.length;
    more.textContent = `show more (${shown.toLocaleString("en")} of ${data.stacks.length.toLocaleString("en")} shown)`;
  };
  more.addEventListener("click", add);
  add();
}
