"use strict";
// Sorts a table by a click on a header; filters and pages long tables. Without this script tables are shown whole.
(() => {
  const element = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  const compareText = new Intl.Collator(undefined, { numeric: true }).compare;
  const number = (cell) => {
    const text = cell.dataset.v;
    if (text === undefined) return NaN;
    return text === "inf" ? Infinity : text === "-inf" ? -Infinity : Number(text);
  };

  // Undefined numbers come last in both orders; equal ones keep their order.
  const order = (rows, column, isText, sign) => rows
    .map((row) => ({ row, key: isText ? row.cells[column].textContent : number(row.cells[column]) }))
    .sort((a, b) => {
      if (isText) return sign * compareText(a.key, b.key);
      if (Number.isNaN(a.key) || Number.isNaN(b.key)) return Number.isNaN(a.key) - Number.isNaN(b.key);
      return sign * (a.key < b.key ? -1 : a.key > b.key ? 1 : 0);
    })
    .map(({ row }) => row);

  for (const box of document.querySelectorAll(".table")) {
    const body = box.querySelector("tbody");
    const headers = [...box.querySelectorAll("th")];
    let rows = [...body.rows];
    let show = () => body.replaceChildren(...rows);

    if ("paged" in box.dataset && rows.length > 10) {
      const filter = element("input", { type: "search", placeholder: "filter", ariaLabel: "filter rows by name" });
      const size = element("select", { ariaLabel: "rows per page" });
      for (const n of [25, 100, 0]) size.append(element("option", { value: n, textContent: n ? `${n} rows` : "all rows" }));
      const back = element("button", { type: "button", textContent: "‹", ariaLabel: "previous page" });
      const on = element("button", { type: "button", textContent: "›", ariaLabel: "next page" });
      const place = element("span", { className: "place", role: "status" });
      let first = 0;
      show = () => {
        const wanted = filter.value.toLowerCase();
        const found = rows.filter((row) => row.cells[0].textContent.toLowerCase().includes(wanted));
        const step = Number(size.value) || found.length;
        first = Math.max(0, Math.min(first, Math.ceil(found.length / step - 1) * step));
        body.replaceChildren(...found.slice(first, first + step));
        const last = Math.min(first + step, found.length);
        place.textContent = found.length ? `${first + 1}–${last} of ${found.length.toLocaleString("en")}` : "none";
        back.disabled = first === 0;
        on.disabled = last >= found.length;
      };
      const turn = (pages) => { first += pages * Number(size.value); show(); };
      filter.addEventListener("input", () => { first = 0; show(); });
      size.addEventListener("change", () => { first = 0; show(); });
      back.addEventListener("click", () => turn(-1));
      on.addEventListener("click", () => turn(1));
      box.prepend(element("div", { className: "controls" }, filter, size, element("span", { className: "pages" }, back, place, on)));
      show();
    }

    headers.forEach((header, column) => {
      const button = element("button", { type: "button", title: header.title }, ...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const isText = header.classList.contains("text");
        const before = header.getAttribute("aria-sort");
        const now = before ? (before === "ascending" ? "descending" : "ascending") : isText ? "ascending" : "descending";
        headers.forEach((other) => other.removeAttribute("aria-sort"));
        header.setAttribute("aria-sort", now);
        rows = order(rows, column, isText, now === "ascending" ? 1 : -1);
        show();
      });
    });
  }
})();
