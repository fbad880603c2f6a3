"use strict";
// From a folder, pages may not be fetched: the search then lists titles without excerpts.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// A slice of a figure: [address, width and height of the figure, viewBox].
const picture = ([address, width, height, box], words) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const image = document.createElementNS("http://www.w3.org/2000/svg", "image");
  for (const [name, value] of Object.entries({ viewBox: box, role: "img", "aria-label": words })) svg.setAttribute(name, value);
  for (const [name, value] of Object.entries({ href: address, width, height })) image.setAttribute(name, value);
  svg.append(image);
  return svg;
};

const shuffled = list => list.map(item => [Math.random(), item]).sort((a, b) => a[0] - b[0]).map(([, item]) => item);

// One slider chooses the column that all pictures of a viewer show.
function viewer(element) {
  const slider = element.querySelector("input"), words = element.querySelector("output");
  const captions = JSON.parse(element.dataset.captions);
  const pictures = [...element.querySelectorAll("svg")].map(svg => [svg, JSON.parse(svg.dataset.boxes)]);
  const show = () => {
    for (const [svg, boxes] of pictures) svg.setAttribute("viewBox", boxes[slider.value]);
    words.textContent = captions[slider.value];
  };
  slider.addEventListener("input", show);
  show();
}

// A table whose columns sort and whose rows can be filtered; the first row stays where it is.
function board(element) {
  const body = element.querySelector("tbody"), heads = [...element.querySelectorAll("thead th")];
  const rows = () => [...body.querySelectorAll("tr:not(.real)")];
  const value = (row, column) => {
    const cell = row.children[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  const missing = content => content === "·";
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    body.append(...rows().sort((one, other) => {
      const [a, b] = [value(one, column), value(other, column)];
      return missing(a) - missing(b) || direction * compare(a, b);  // what is not measured comes last
    }));
  }));
  element.querySelector("input").addEventListener("input", event => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows()) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  });
}

// Real or synthetic: ten of each, one by one.
function reading(element) {
  const data = JSON.parse(element.querySelector("script").textContent);
  const chosen = make("select", { ariaLabel: "system" }, ...Object.keys(data.systems).map(name => make("option", {}, name)));
  const place = make("div", { className: "place" });
  let answer = () => {};
  const begin = () => {
    const { cells, network } = data.systems[chosen.value];
    const take = (list, real) => shuffled(list).slice(0, data.each).map(cell => ({ cell, real }));
    const asked = shuffled([...take(data.real, true), ...take(cells, false)]), wrong = [];
    let count = 0;
    const next = () => {
      if (count === asked.length) return end();
      const buttons = [["real", true], ["synthetic", false]].map(([words, real]) =>
        make("button", { type: "button", textContent: words, onclick: () => answer(real) }));
      place.replaceChildren(make("p", {}, `${count + 1} of ${asked.length}`), picture(asked[count].cell, "real or synthetic?"),
                            make("p", {}, ...buttons, " (keys: r, s)"));
    };
    const end = () => {
      answer = () => {};
      const right = asked.length - wrong.length;
      const shown = wrong.map(({ cell, real }) => make("figure", {}, picture(cell, real ? "real" : "synthetic"),
                                                       make("figcaption", {}, real ? "real" : "synthetic")));
      place.replaceChildren(make("p", { className: "score" }, `You called ${right} of ${asked.length} right ` +
        `(${(right / asked.length).toFixed(2)}); the network: ${network}.`), make("p", {}, wrong.length ? "Called wrong:" : ""),
                            make("div", { className: "pictures" }, ...shown));
    };
    answer = real => {
      if (asked[count].real !== real) wrong.push(asked[count]);
      count += 1;
      next();
    };
    next();
  };
  document.addEventListener("keydown", event => {
    if (["INPUT", "SELECT"].includes(event.target.tagName) || event.ctrlKey || event.metaKey) return;
    if (event.key === "r" || event.key === "s") answer(event.key === "r");
  });
  element.append(chosen, make("button", { type: "button", textContent: "Begin", onclick: begin }), place);
}

document.addEventListener("DOMContentLoaded", () => {
  for (const [kind, start] of Object.entries({ viewer, board, reading }))
    document.querySelectorAll(`div.${kind}`).forEach(element => start(element));
});
