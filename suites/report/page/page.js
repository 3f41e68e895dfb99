// Sorting, filtering, saving, the theme. Without this script the page still shows everything.
"use strict";
const root = document.documentElement;
root.classList.add("scripted");
const say = (text) => { document.getElementById("said").textContent = text; };

// --- the theme: the system's, until the button says otherwise; remembered where the browser allows it
const theme = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const keep = {
  get: () => { try { return localStorage.getItem("sparring-theme"); } catch { return null; } },
  set: (value) => { try { localStorage.setItem("sparring-theme", value); } catch { /* a page from a file may not */ } },
};
let chosen = keep.get();
function paint() {
  const isDark = chosen ? chosen === "dark" : dark.matches;
  root.style.colorScheme = isDark ? "dark" : "light";
  theme.textContent = isDark ? "Light" : "Dark";
  theme.setAttribute("aria-pressed", String(isDark));
  theme.setAttribute("aria-label", isDark ? "Show the page light" : "Show the page dark");
}
theme.addEventListener("click", () => {
  chosen = root.style.colorScheme === "dark" ? "light" : "dark";
  keep.set(chosen);
  paint();
});
dark.addEventListener("change", paint);
paint();

// --- sorting: numbers by their value, texts as people count; what has no value stays last
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
function compare(a, b, numeric, sign) {
  if (!numeric) return sign * collator.compare(a, b);
  const [x, y] = [a, b].map((text) => (text === "" ? NaN : Number(text)));
  if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
  return sign * (x - y);
}
for (const table of document.querySelectorAll("table[id]")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const order = [...body.rows];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const numeric = head.classList.contains("n");
    const first = numeric ? "descending" : "ascending";
    const other = numeric ? "ascending" : "descending";
    const before = head.getAttribute("aria-sort");
    const now = before === "none" ? first : before === first ? other : "none";
    heads.forEach((each) => each.setAttribute("aria-sort", each === head ? now : "none"));
    const key = (row) => (numeric ? row.cells[column].dataset.v : row.cells[column].textContent);
    const rows = now === "none" ? order
      : order.map((row) => [key(row), row]).sort((a, b) => compare(a[0], b[0], numeric, now === "ascending" ? 1 : -1)).map((pair) => pair[1]);
    body.append(...rows);
    say(now === "none" ? "as they were" : `sorted by ${head.textContent}, ${now}`);
  }));
}

// --- filtering: a row stays if it has every word
for (const input of document.querySelectorAll("[data-filter]")) {
  const rows = [...document.getElementById(`rows-${input.dataset.filter}`).tBodies[0].rows];
  const count = document.querySelector(`[data-count="${CSS.escape(input.dataset.filter)}"]`);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of rows) {
      const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      left += !row.hidden;
    }
    count.textContent = words.length ? `${left} of ${rows.length} rows` : `${rows.length} rows`;
  });
}

// --- saving: the file is in the page already
const types = { csv: "text/csv", tex: "application/x-tex" };
for (const button of document.querySelectorAll("[data-save]")) {
  const { save: id, form } = button.dataset;
  button.addEventListener("click", () => {
    const text = JSON.parse(document.getElementById(`files-${id}`).textContent)[form];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: `${types[form]};charset=utf-8` }));
    link.download = `${document.body.dataset.suite}-${id}.${form}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    say(`${link.download} is saved`);
  });
}

document.getElementById("copy").addEventListener("click", async () => {
  const command = document.getElementById("command");
  try {
    await navigator.clipboard.writeText(command.textContent);
    say("copied");
  } catch {
    getSelection().selectAllChildren(command); // where the clipboard is closed, a selection is next best
  }
});

// --- on paper everything is open; on a narrow screen the contents begin closed
const contents = document.querySelector("nav .contents");
if (matchMedia("(max-width: 74.99rem)").matches) contents.open = false;
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("main details:not([open])")];
  closed.forEach((each) => { each.open = true; });
});
addEventListener("afterprint", () => closed.forEach((each) => { each.open = false; }));
