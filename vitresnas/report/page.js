// Hover shows a point's text and marks the same thing in every chart; a click pins it for comparison.
"use strict";
const hover = document.getElementById("hover");
const points = [...document.querySelectorAll(".point")];
const same = point => point.dataset.key ? points.filter(p => p.dataset.key === point.dataset.key) : [];

function show(point, x, y) {
  if (!point.dataset.text) return;
  hover.textContent = point.dataset.text;
  hover.hidden = false;
  hover.style.left = Math.max(0, Math.min(x + 14, innerWidth - hover.offsetWidth - 8)) + "px";
  hover.style.top = Math.max(0, Math.min(y + 14, innerHeight - hover.offsetHeight - 8)) + "px";
  same(point).forEach(p => p.classList.add("same"));
}

function hide() {
  hover.hidden = true;
  document.querySelectorAll(".same").forEach(p => p.classList.remove("same"));
}

const pins = [];
function pin(point) {
  const slots = document.querySelectorAll("#pins pre");
  if (!slots.length || !point.dataset.key) return;
  const known = pins.findIndex(p => p.dataset.key === point.dataset.key);
  if (known >= 0) pins.splice(known, 1);
  else pins.push(point);
  if (pins.length > slots.length) pins.shift();
  points.forEach(p => p.classList.toggle("pinned", pins.some(q => q.dataset.key === p.dataset.key)));
  slots.forEach((slot, n) => { slot.textContent = pins[n] ? pins[n].dataset.text : "click a point to pin it here"; });
}

for (const point of points) {
  point.addEventListener("mousemove", event => { hide(); show(point, event.clientX, event.clientY); });
  point.addEventListener("mouseleave", hide);
  point.addEventListener("focus", () => { const r = point.getBoundingClientRect(); show(point, r.right, r.bottom); });
  point.addEventListener("blur", hide);
  point.addEventListener("click", () => pin(point));
  point.addEventListener("keydown", event => { if (event.key === "Enter") pin(point); });
}
