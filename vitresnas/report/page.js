// Hover (or the arrow keys) shows the nearest point's thing in every chart and table; a click chooses it.
// A page with networks (networks.js) draws them in the hover card; others show the point's text.
"use strict";
const hover = document.getElementById("hover");
const NEAR = 16; // in units of a chart's own drawing

const byKey = new Map();
for (const element of document.querySelectorAll("[data-key]")) {
  const key = element.dataset.key;
  if (key) byKey.set(key, [...(byKey.get(key) ?? []), element]);
}
const alike = key => byKey.get(key) ?? [];

function place(point) {
  const { e, f } = point.transform.baseVal.getItem(0).matrix;
  return [e, f];
}

function show(element, x, y) {
  const key = element.dataset.key;
  if (hover.hidden || hover.element !== element) {
    hide();
    hover.element = element;
    const card = typeof networkCard === "function" ? networkCard(key, element.dataset.text) : null;
    hover.replaceChildren(card ?? element.dataset.text ?? "");
    hover.hidden = !hover.hasChildNodes() || !hover.textContent;
    alike(key).forEach(other => other.classList.add("same"));
  }
  const right = x + 16 + hover.offsetWidth > innerWidth - 8;
  hover.style.left = Math.max(8, right ? x - 16 - hover.offsetWidth : x + 16) + "px";
  hover.style.top = Math.max(8, Math.min(y + 16, innerHeight - hover.offsetHeight - 8)) + "px";
}

function hide() {
  hover.hidden = true;
  hover.element = null;
  document.querySelectorAll(".same").forEach(element => element.classList.remove("same"));
}

function choose(key) {
  if (key && typeof pinNetwork === "function") pinNetwork(key);
}

function nearest(svg, points, event) {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  let best = null, least = NEAR ** 2;
  for (const { point, x, y } of points) {
    const distance = (x - at.x) ** 2 + (y - at.y) ** 2;
    if (distance <= least) [best, least] = [point, distance]; // of equals the one drawn on top
  }
  return best;
}

for (const svg of document.querySelectorAll("svg.chart")) {
  const points = [...svg.querySelectorAll(".point")].map(point => {
    const [x, y] = place(point);
    return { point, x, y };
  });
  svg.addEventListener("pointermove", event => {
    const point = nearest(svg, points, event);
    svg.style.cursor = point ? "pointer" : "";
    if (point) show(point, event.clientX, event.clientY); else hide();
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("click", event => choose(nearest(svg, points, event)?.dataset.key));
  // One stop of the tab key per chart; the arrow keys go from point to point.
  const order = points.toSorted((p, q) => p.x - q.x || p.y - q.y).map(({ point }) => point);
  order.forEach((point, index) => {
    point.setAttribute("tabindex", index ? "-1" : "0");
    point.addEventListener("focus", () => {
      const box = point.getBoundingClientRect();
      show(point, box.right, box.bottom);
    });
    point.addEventListener("blur", hide);
    point.addEventListener("keydown", event => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step) { order[index + step]?.focus(); event.preventDefault(); }
      if (event.key === "Enter") choose(point.dataset.key);
    });
  });
}

for (const part of document.querySelectorAll("svg.stages .point, tr[data-key]")) {
  part.addEventListener("pointermove", event => show(part, event.clientX, event.clientY));
  part.addEventListener("pointerleave", hide);
  part.addEventListener("click", () => choose(part.dataset.key));
}
