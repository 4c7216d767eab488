"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 50;
  const detail = document.getElementById("detail");

  // ---- Elements. Text only ever becomes a text node, so nothing in a name can be markup.

  function h(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return element;
  }

  const verdict = (word) => h("span", { class: `verdict ${word}` }, word);
  const minus = (text) => text.replaceAll("-", "\u2212");
  // A long call may be broken where its parts end.
  const breakable = (text) => text.split(/(?<=[(,_])/).flatMap((part, at) => at ? [h("wbr"), part] : [part]);
  const EMPTY = () => h("span", { class: "none plain-text" }, "–");

  // ---- Records: lists in the order of data.fields, made objects one at a time.

  const FIELD = Object.fromEntries(data.fields.map((name, at) => [name, at]));
  const get = (record, name) => record[FIELD[name]];
  const key = (record) => `${record[0]}.${record[1]}.${record[2]}`;
  const byRow = new Map();
  const byHash = new Map();
  for (const record of data.records) {
    if (!byRow.has(key(record))) byRow.set(key(record), []);
    byRow.get(key(record)).push(record);
    byHash.set(get(record, "hash"), record);
  }
  const suiteOf = (record) => data.suites[record[0]];
  const problemOf = (record) => suiteOf(record).problems[record[1]];
  const rowOf = (record) => problemOf(record).rows[record[2]];
  const labelOf = (row) => row.cells[0];

  function figure(value) {
    if (value === null || value === undefined) return "–";
    if (typeof value !== "number") return String(value);
    if (Number.isInteger(value)) return String(value);
    return String(Number(value.toPrecision(6)));
  }

  const date = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ") + " UTC";

  function cost(name, value) {
    if (value === null || value === undefined) return "–";
    if (name.endsWith("_bytes")) return `${(value / 1e6).toPrecision(4)} MB`;
    if (name.endsWith("_seconds")) return `${value.toPrecision(4)} s`;
    return `${value.toPrecision(4)} ${name.split("_").pop()}`;
  }

  // ---- A table of any rows: sorted by its headings, filtered by a text and a choice, a page at a time.

  function table(host, { columns, rows, text, choices, name }) {
    let sorted = null;
    let up = true;
    let shown = PAGE;
    let filter = "";
    const chosen = {};
    const body = h("tbody");
    const count = h("span", { class: "count", role: "status" });
    const more = h("button", { type: "button", class: "quiet more", onclick: () => { shown += 10 * PAGE; draw(); } });
    const heads = columns.map((column, at) => {
      const button = h("button", { type: "button", onclick: () => sort(at) }, column.heading);
      return h("th", { scope: "col", class: column.text ? "text" : null }, button);
    });

    function sort(at) {
      up = sorted === at ? !up : true;
      sorted = at;
      heads.forEach((head, number) => {
        if (number === at) head.setAttribute("aria-sort", up ? "ascending" : "descending");
        else head.removeAttribute("aria-sort");
      });
      draw();
    }

    // Rows that have no value come last whichever way the others are sorted.
    function order(one, other) {
      const [a, b] = [columns[sorted].value(one), columns[sorted].value(other)];
      const [noA, noB] = [a === null || a === undefined, b === null || b === undefined];
      if (noA || noB) return noA - noB;
      const way = typeof a === "number" && typeof b === "number"
        ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
      return up ? way : -way;
    }

    function draw() {
      const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
      let kept = rows.filter((row) => {
        const all = text(row).toLowerCase();
        return words.every((word) => all.includes(word))
          && choices.every((choice) => !chosen[choice.name] || choice.has(row, chosen[choice.name]));
      });
      if (sorted !== null) kept = kept.slice().sort(order);
      body.replaceChildren(...kept.slice(0, shown).map((row) => h("tr", {}, columns.map((column) => column.cell(row)))));
      count.textContent = kept.length === rows.length ? `${rows.length} rows` : `${kept.length} of ${rows.length} rows`;
      more.hidden = kept.length <= shown;
      more.textContent = `Show ${Math.min(10 * PAGE, kept.length - shown)} more`;
    }

    const input = h("input", { type: "search", placeholder: "Filter", "aria-label": `Filter ${name}`, autocomplete: "off",
      oninput: (event) => { filter = event.target.value; shown = PAGE; draw(); } });
    const selects = choices.filter((choice) => choice.values.length > 1).map((choice) =>
      h("select", { "aria-label": `${choice.name} of ${name}`,
        onchange: (event) => { chosen[choice.name] = event.target.value; shown = PAGE; draw(); } },
        h("option", { value: "" }, choice.all), choice.values.map((value) => h("option", { value }, value))));
    body.addEventListener("keydown", walk);
    draw();
    host.replaceChildren(
      h("div", { class: "tools" }, input, selects, count),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name },
        h("table", {}, h("caption", { hidden: true }, name), h("thead", {}, h("tr", {}, heads)), body)),
      more);
  }

  // Arrow keys go from number to number; Tab only stops at the first of each row.
  function walk(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const cell = event.target.closest("th, td");
    if (!step || !cell) return;
    let [row, at] = [cell.parentElement, cell.cellIndex];
    do {
      row = step[0] < 0 ? row.previousElementSibling : step[0] > 0 ? row.nextElementSibling : row;
      at += step[1];
      if (!row || !row.cells[at]) return;
      const next = row.cells[at].querySelector("button");
      if (next) { event.preventDefault(); next.focus(); return; }
    } while (true);
  }

  // ---- The tables of the suites.

  function cell(value, where) {
    if (value === null) return EMPTY();
    if (!Array.isArray(value)) return h("span", { class: "plain-text" }, value);
    const [number, interval, word, , mark] = value;
    return h("button", { type: "button", class: `cell ${mark}`, tabindex: "-1", onclick: () => go("row", where) },
      h("span", { class: "v" }, minus(number), word ? " " : null, word ? verdict(word) : null),
      interval ? h("span", { class: "i" }, minus(interval)) : null);
  }

  function resultTable(host, suite, at) {
    const problem = data.suites[suite].problems[at];
    const rows = problem.rows.map((row, number) => ({ ...row, where: `${suite}.${at}.${number}` }));
    // A phone shows two or three columns at once: those of the metrics come first there.
    const places = problem.columns.map((_, number) => number);
    if (matchMedia("(max-width: 580px)").matches) {
      const rank = (number) => number === 0 ? 0 : problem.columns[number].metric !== null ? 1 : 2;
      places.sort((one, other) => rank(one) - rank(other) || one - other);
    }
    const columns = places.map((number) => ({
      heading: problem.columns[number].heading,
      text: number === 0,
      value: (row) => Array.isArray(row.cells[number]) ? row.cells[number][3] : row.cells[number],
      cell: (row) => number === 0
        ? h("th", { scope: "row", class: "text" },
            h("button", { type: "button", class: "cell", onclick: () => go("row", row.where) }, breakable(row.cells[0]),
              row.notes.length ? h("sup", {}, row.notes.join(", ")) : null))
        : h("td", {}, cell(row.cells[number], row.where)),
    }));
    const words = (row) => row.cells.filter(Array.isArray).map((one) => one[2]).filter(Boolean);
    table(host, {
      name: `results on ${problem.title}`, columns, rows,
      text: (row) => `${row.cells[0]} ${words(row).join(" ")} ${JSON.stringify(row.params)}`,
      choices: [
        { name: "Method", all: "All methods", values: [...new Set(rows.map((row) => row.method))],
          has: (row, value) => row.method === value },
        { name: "Verdict", all: "All verdicts", values: [...new Set(rows.flatMap(words))].sort(),
          has: (row, value) => words(row).includes(value) },
      ],
    });
  }

  function recordTable(host) {
    const shown = (record) => get(record, "metrics").map((one, at) =>
      one ? `${problemOf(record).metrics[at].name} ${figure(one[0])}` : null).filter(Boolean).join(", ");
    const open = (record, text) => h("button", { type: "button", class: "cell", onclick: () => go("record", get(record, "hash")) }, text);
    const plain = (text, className) => h("td", { class: className }, h("span", { class: "plain-text" }, text));
    const wall = (record) => get(record, "costs")[0];
    const status = (record) => get(record, "old") ? "older" : get(record, "status");
    table(host, {
      name: "records", rows: data.records,
      columns: [
        { heading: "record", text: true, value: (one) => get(one, "hash"),
          cell: (one) => h("th", { scope: "row", class: "text" }, open(one, get(one, "hash").slice(0, 10))) },
        { heading: "method", text: true, value: (one) => labelOf(rowOf(one)), cell: (one) => plain(labelOf(rowOf(one)), "text") },
        { heading: "problem", text: true, value: (one) => problemOf(one).title,
          cell: (one) => plain(data.suites.length > 1 ? `${suiteOf(one).name}: ${problemOf(one).title}` : problemOf(one).title, "text") },
        { heading: "seed", value: (one) => get(one, "seed"), cell: (one) => plain(String(get(one, "seed"))) },
        { heading: "status", text: true, value: status,
          cell: (one) => plain(status(one), `text status-${get(one, "status")}`) },
        { heading: "result", text: true, value: (one) => (get(one, "metrics")[0] || [null])[0],
          cell: (one) => plain(shown(one) || data.reasons[get(one, "reason")] || "–", "text") },
        { heading: "time (s)", value: wall, cell: (one) => plain(wall(one) === null ? "–" : wall(one).toPrecision(3)) },
        { heading: "made", value: (one) => get(one, "created"), cell: (one) => plain(date(get(one, "created")).slice(0, 16)) },
      ],
      text: (one) => [get(one, "hash"), labelOf(rowOf(one)), suiteOf(one).name, problemOf(one).title, `seed ${get(one, "seed")}`,
        status(one), shown(one), data.reasons[get(one, "reason")]].join(" "),
      choices: [
        { name: "Status", all: "Every status", values: [...new Set(data.records.map(status))].sort(),
          has: (one, value) => status(one) === value },
        { name: "Method", all: "All methods", values: [...new Set(data.records.map((one) => rowOf(one).method))],
          has: (one, value) => rowOf(one).method === value },
      ],
    });
  }

  function claimTable(host) {
    const { columns: headings, rows } = data.claims;
    const shown = (row, value) => Array.isArray(value) ? cell(value, row.where)
      : value === row.outcome ? h("span", { class: "plain-text" }, h("span", { class: `verdict ${value.replaceAll(" ", "-")}` }, value))
      : value === null ? EMPTY() : h("span", { class: "plain-text" }, value);
    const columns = headings.map((heading, at) => ({
      heading,
      text: true,
      value: (row) => Array.isArray(row.cells[at]) ? row.cells[at][3] : row.cells[at],
      cell: (row) => at > 0 ? h("td", { class: "text" }, shown(row, row.cells[at]))
        : h("th", { scope: "row", class: "text" }, row.where === null ? h("span", { class: "plain-text" }, row.cells[0])
            : h("button", { type: "button", class: "cell", onclick: () => go("row", row.where) }, row.cells[0])),
    }));
    table(host, {
      name: "claims", columns, rows, text: (row) => row.cells.flat().join(" "),
      choices: [{ name: "Outcome", all: "Every outcome", values: [...new Set(rows.map((row) => row.outcome))].sort(),
        has: (row, value) => row.outcome === value }],
    });
  }

  // ---- Details of a row and of a record, each with an address of its own.

  const list = (entries) => h("dl", {}, entries.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  function words(value, inside = false) {
    if (Array.isArray(value)) return value.length ? value.map((one) => words(one, true)).join(", ") : "none";
    if (value === null || typeof value !== "object") return value === null ? "none" : figure(value);
    const text = Object.entries(value).map(([name, one]) => `${name}: ${words(one, true)}`).join(", ");
    return inside ? `(${text})` : text;
  }
  const pairs = (values) => Object.entries(values).map(([name, value]) => [name.replaceAll("_", " "), words(value)]);

  function command(text) {
    const button = h("button", { type: "button", class: "quiet", onclick: async () => {
      try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
      catch { getSelection().selectAllChildren(code); button.textContent = "Selected"; }
    } }, "Copy");
    const code = h("code", {}, text);
    return h("div", { class: "command" }, code, button);
  }

  function simpleTable(heads, rows) {
    return h("div", { class: "scroll" }, h("table", { class: "plain" },
      heads.length ? h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))) : null,
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((one) => h("td", {}, one)))))));
  }

  function card(title, subtitle, back, ...children) {
    const close = h("button", { type: "button", class: "quiet", onclick: () => detail.close() }, "Close");
    const up = back ? h("button", { type: "button", class: "quiet", onclick: back }, "Row") : null;
    detail.replaceChildren(h("div", { class: "card" }, h("div", { class: "bar" }, up, close),
      h("h2", { id: "detail-title", tabindex: "-1" }, title), h("p", { class: "small" }, subtitle), ...children));
    if (!detail.open) detail.showModal();
    detail.scrollTop = 0;
    document.getElementById("detail-title").focus();
  }

  function again(suite, row, commits) {
    const places = [...new Set(commits.filter(Boolean))];
    const changed = places.some((one) => one.endsWith("+"));
    return [
      h("h3", {}, "To make it again"),
      command(data.suites[suite].commands[row]),
      places.length ? h("p", { class: "small" }, `Made at commit ${places.join(", ")}${changed ? " (+: files were changed)" : ""}.`) : null,
    ];
  }

  const commit = (record) => data.environments[get(record, "environment")].commit;

  function showRow(where) {
    const [suite, at, number] = where.split(".").map(Number);
    const problem = data.suites[suite]?.problems[at];
    const row = problem?.rows[number];
    if (!row) return false;
    const records = byRow.get(where) || [];
    const numbers = problem.columns.map((column, one) => [column.heading, row.cells[one]]).slice(1).filter(([, value]) => value !== null);
    const heads = ["seed", "status", ...problem.metrics.map((metric) => metric.name), "time", "record"];
    const lines = records.map((record) => [
      String(get(record, "seed")), get(record, "old") ? "older code" : get(record, "status"),
      ...get(record, "metrics").map((one) => one ? figure(one[0]) : "–"),
      cost("wall_seconds", get(record, "costs")[0]),
      h("a", { href: `#record=${get(record, "hash")}` }, get(record, "hash").slice(0, 10)),
    ]);
    const protocols = [...new Set(records.flatMap((record) => get(record, "metrics").filter(Boolean).map((one) => data.signatures[one[1]].slice(0, 2).join("  ·  ")+" items")))];
    card(labelOf(row), `${data.suites[suite].name}: ${problem.title}`, null,
      list(numbers.map(([heading, value]) => [heading, Array.isArray(value)
        ? h("span", {}, minus(value[0]), " ", value[1] ? h("span", { class: "i" }, minus(value[1])) : null,
            value[2] ? verdict(value[2]) : null, value[5] ? h("span", { class: "i" }, " ", value[5]) : null) : value])),
      row.notes.map((note) => h("p", { class: "small" }, problem.notes[note - 1])),
      h("h3", {}, records.length === 1 ? "Its record" : `Its ${records.length} records`),
      records.length ? simpleTable(heads, lines) : h("p", {}, "None: the row has not been run."),
      again(suite, number, records.filter((record) => !get(record, "old")).map(commit)),
      Object.keys(row.params).length ? [h("h3", {}, "Parameters"), list(pairs(row.params))] : null,
      protocols.length ? [h("h3", {}, "Protocol"), protocols.map((one) => h("p", { class: "small" }, h("code", {}, one)))] : null);
    return true;
  }

  function showRecord(hash) {
    const record = byHash.get(hash);
    if (!record) return false;
    const problem = problemOf(record);
    const row = rowOf(record);
    const kinds = data.kinds[get(record, "kinds")];
    const spent = data.costs.map((name, at) => [name.replace(/_(bytes|seconds|joules)$/, "").replaceAll("_", " "), cost(name, get(record, "costs")[at]), kinds[at]]);
    const reason = data.reasons[get(record, "reason")];
    const { packages, ...place } = data.environments[get(record, "environment")];
    const metrics = get(record, "metrics").map((one, at) => one && [problem.metrics[at].name, one]).filter(Boolean);
    card(`${labelOf(row)}, seed ${get(record, "seed")}`,
      `${suiteOf(record).name}: ${problem.title}, ${date(get(record, "created"))}`, () => go("row", key(record)),
      reason ? h("p", { class: "warn" }, `${get(record, "status")}: ${reason}`) : null,
      metrics.map(([name, one]) => [
        h("h3", {}, `${name}: ${figure(one[0])}${data.signatures[one[1]][2] ? " " + data.signatures[one[1]][2] : ""}`),
        h("p", { class: "small" }, h("code", {}, data.signatures[one[1]][0]), `, ${data.signatures[one[1]][1]} items`),
        one[2] ? list(Object.entries(one[2]).map(([extra, value]) => [extra.replaceAll("_", " "), figure(value)])) : null,
      ]),
      again(record[0], record[2], [commit(record)]),
      h("p", { class: "small" }, "The record itself:"), command(`harness show ${hash}`),
      h("h3", {}, "Cost"), simpleTable([], spent.filter((one) => one[2] !== "missing")),
      Object.keys(data.sizes[get(record, "size")]).length ? [h("h3", {}, "Size"), list(pairs(data.sizes[get(record, "size")]))] : null,
      h("h3", {}, "Parameters and problem"),
      list([...pairs(row.params), ["problem", words(problem.spec)], ["seed", String(get(record, "seed"))], ["source of the method", get(record, "version")]]),
      h("h3", {}, "Environment"), list(pairs(place)), list(pairs(packages || {})),
      get(record, "traceback") ? [h("h3", {}, "Traceback"), h("pre", { tabindex: "0" }, get(record, "traceback"))] : null);
    return true;
  }

  function go(kind, value) { location.hash = `${kind}=${value}`; }

  function follow() {
    const found = /^#(row|record)=(.+)$/.exec(location.hash);
    const shown = found && (found[1] === "row" ? showRow(found[2]) : showRecord(found[2]));
    if (!shown && detail.open) detail.close();
  }

  detail.addEventListener("close", () => {
    if (/^#(row|record)=/.test(location.hash)) history.pushState(null, "", location.pathname + location.search);
  });
  detail.addEventListener("click", (event) => { if (event.target === detail) detail.close(); });
  addEventListener("hashchange", follow);
  addEventListener("popstate", follow);

  // ---- Marks of the plots lead to their rows.

  function openMark(event) {
    const mark = event.target.closest?.("[data-row]");
    if (!mark || (event.type === "keydown" && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    go("row", mark.dataset.row);
  }
  for (const plot of document.querySelectorAll(".figures")) {
    plot.addEventListener("click", openMark);
    plot.addEventListener("keydown", openMark);
  }

  // ---- Light, dark, or as the system has it.

  const THEMES = ["auto", "light", "dark"];
  const toggle = document.getElementById("theme");
  const stored = () => { try { return localStorage.getItem("harness-theme"); } catch { return null; } };
  function theme(name) {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    toggle.textContent = name[0].toUpperCase() + name.slice(1);
    toggle.setAttribute("aria-label", `Colours: ${name === "auto" ? "as the system has them" : name}`);
    toggle.value = name;
    try { localStorage.setItem("harness-theme", name); } catch { /* a page from a file may have no storage */ }
  }
  toggle.addEventListener("click", () => theme(THEMES[(THEMES.indexOf(toggle.value) + 1) % THEMES.length]));
  theme(THEMES.includes(stored()) ? stored() : "auto");

  // ---- Everything is there; a table is filled in when it comes near the screen.

  const fill = (host) => {
    const name = host.dataset.table;
    if (name === "records") recordTable(host);
    else if (name === "claims") claimTable(host);
    else resultTable(host, ...name.split(".").map(Number));
  };
  for (const host of document.querySelectorAll("[data-table]")) fill(host);
  follow();
})();
