"use strict";
// What the page does besides standing there: tables sorted and filtered, long ones a part at a time, marks of plots that say
// what they are. Without it all is there, in the order of the file. It asks nothing of anybody and keeps nothing.
(() => {
  const all = (css, within = document) => [...within.querySelectorAll(css)];
  const make = (name, fields) => Object.assign(document.createElement(name), fields);
  const PART = 24, FEW = 12;
  const POWERS = "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079";

  // What stands in a cell itself, without what is small under it.
  const text = cell => [...cell.childNodes].filter(node => node.nodeType === 3).map(node => node.data).join("").trim();
  const number = said => parseFloat(said.replace(/\u2212/g, "-").replace(/\u00a0\u00d7\u00a010(.+)/, (_, power) =>
    "e" + [...power].map(digit => "-0123456789"[POWERS.indexOf(digit)]).join("")));
  const compare = (a, b, way) => {
    const [one, other] = [number(a), number(b)];
    if (isNaN(one) !== isNaN(other)) return isNaN(one) ? 1 : -1;
    return way * (isNaN(one) ? a.localeCompare(b, "en", { numeric: true }) : one - other);
  };

  let wanted = "", printing = false;
  const tables = all(".scroll > table").map(table => {
    const body = table.tBodies[0], first = [...body.rows];
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    let rows = first, open = first.length <= PART;
    const more = open ? null : make("button", { type: "button", className: "more" });
    const show = () => {
      let n = 0;
      for (const row of rows) {
        const passes = !table.classList.contains("t") || text(row.cells[0]).toLowerCase().includes(wanted);
        row.hidden = !printing && !(passes && (open || n < PART));
        if (passes) n += 1;
      }
      if (more) {
        more.hidden = n <= PART;
        more.textContent = open ? `first ${PART} rows` : `all ${n} rows`;
      }
    };
    const sort = (column, way) => {
      // By name, names are words even where they begin with a digit.
      const key = row => text(row.cells[column]);
      const order = column ? (a, b) => compare(a[0], b[0], way) : (a, b) => way * a[0].localeCompare(b[0], "en", { numeric: true });
      rows = way ? first.map(row => [key(row), row]).sort(order).map(pair => pair[1]) : first;
      heads.forEach((head, i) => i === column && way
        ? head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending") : head.removeAttribute("aria-sort"));
      body.append(...rows);
      show();
    };
    if (first.length > 1) heads.forEach((head, column) => {
      const button = make("button", { type: "button", title: "sort: up, down, as it was" });
      button.append(...head.childNodes);
      head.append(button);
      const ways = { ascending: -1, descending: 0 };
      button.addEventListener("click", () => sort(column, ways[head.getAttribute("aria-sort")] ?? 1));
    });
    if (more) {
      table.parentNode.after(more);
      more.addEventListener("click", () => { open = !open; show(); });
    }
    show();
    return show;
  });

  const named = all("[data-name]");
  const subjects = all("#summary .t tbody tr").length;
  const noun = document.body.dataset.noun;
  if (subjects > FEW) {
    const input = make("input", { type: "search", placeholder: `${noun}s by name` });
    input.setAttribute("aria-label", `only ${noun}s whose name has`);
    const count = make("output", {});
    const bar = make("div", { className: "filter" });
    bar.append(input, count);
    document.querySelector("main").prepend(bar);
    input.addEventListener("input", () => {
      wanted = input.value.trim().toLowerCase();
      tables.forEach(show => show());
      named.forEach(part => { part.hidden = !part.dataset.name.toLowerCase().includes(wanted); });
      const n = all("#summary .t tbody th").filter(cell => text(cell).toLowerCase().includes(wanted)).length;
      count.textContent = wanted ? `${n} of ${subjects}` : "";
    });
  }

  // One note for all marks: at once, by pointer or by the arrow keys within a plot.
  const tip = make("div", { className: "tip", hidden: true });
  tip.setAttribute("role", "status");
  document.body.append(tip);
  const hide = () => { tip.hidden = true; };
  const tell = mark => {
    tip.textContent = mark.getAttribute("aria-label");
    tip.hidden = false;
    const at = mark.getBoundingClientRect(), own = tip.getBoundingClientRect(), width = document.documentElement.clientWidth;
    tip.style.left = `${Math.max(4, Math.min(width - own.width - 4, at.left + at.width / 2 - own.width / 2))}px`;
    tip.style.top = `${at.top > own.height + 10 ? at.top - own.height - 6 : at.bottom + 6}px`;
  };
  for (const plot of all("svg.fx")) {
    const marks = all(".m", plot);
    if (marks.length) plot.setAttribute("role", "group");
    marks.forEach((mark, i) => {
      const title = mark.querySelector("title");
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", title.textContent);
      mark.setAttribute("tabindex", i ? -1 : 0);
      title.remove();
    });
  }
  const mark = event => event.target.closest?.(".m");
  document.addEventListener("pointerover", event => mark(event) ? tell(mark(event)) : hide());
  document.addEventListener("focusin", event => mark(event) ? tell(mark(event)) : hide());
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { capture: true, passive: true });
  document.addEventListener("keydown", event => {
    if (event.key === "Escape") hide();
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const from = mark(event);
    if (!from || !step) return;
    const marks = all(".m", from.closest("svg"));
    const to = marks[(marks.indexOf(from) + step + marks.length) % marks.length];
    from.setAttribute("tabindex", -1);
    to.setAttribute("tabindex", 0);
    event.preventDefault();
    to.focus({ preventScroll: true });
    to.scrollIntoView({ block: "nearest", inline: "nearest" });
    tell(to);
  });

  // On paper nothing is folded.
  let folded = [];
  addEventListener("beforeprint", () => {
    hide();
    printing = true;
    tables.forEach(show => show());
    folded = all("details:not([open])");
    folded.forEach(part => { part.open = true; });
  });
  addEventListener("afterprint", () => {
    printing = false;
    tables.forEach(show => show());
    folded.forEach(part => { part.open = false; });
  });
})();
