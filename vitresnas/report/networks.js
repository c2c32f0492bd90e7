// Networks as small drawings: in the hover card, and two of them compared.
"use strict";
const read = id => JSON.parse(document.getElementById(id).textContent);
const NETWORKS = read("networks"), ROLES = read("roles");
const LARGEST = NETWORKS[ROLES.largest];
const BAR = 5, BLOCK = 13, GAP = 9, HIGH = 48;
const TALLEST = Math.max(...Object.values(NETWORKS).flatMap(n => n.stages.flatMap(([, , blocks]) =>
  blocks.flatMap(b => b ? [b[0], b[1]] : [1]))));

// Two bars per block, attention's channels and the MLP's, within the largest network's outline.
// Beside another network, what both share is pale.
function glyph(network, other) {
  const parts = [];
  let left = 0;
  const bar = (x, channels, cls) => {
    const high = HIGH * channels / TALLEST;
    parts.push(`<rect class="${cls}" x="${x}" y="${HIGH - high}" width="${BAR}" height="${high}"/>`);
  };
  network.stages.forEach(([tokens, width, blocks], s) => {
    const begin = left;
    blocks.forEach((block, b) => {
      const full = LARGEST.stages[s]?.[2][b], theirs = other?.stages[s]?.[2][b];
      for (const n of [0, 1]) {
        if (full) bar(left + n * BAR, full[n], block ? "outline" : "outline skipped");
        const same = other && theirs && block && theirs[n] === block[n];
        if (block) bar(left + n * BAR, block[n], `bar c-c${n}${same ? " alike" : ""}`);
      }
      left += BLOCK;
    });
    left -= BLOCK - 2 * BAR;
    parts.push(`<text class="x" x="${(begin + left) / 2}" y="${HIGH + 10}">${tokens} x ${width}</text>`);
    left += GAP;
  });
  return `<svg class="glyph" viewBox="-1 -1 ${left - GAP + 2} ${HIGH + 14}">${parts.join("")}</svg>`;
}

function short(value) {
  for (const [unit, letter] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (value >= unit) return Number((value / (letter === "k" ? 1e3 : unit)).toPrecision(4)) + letter;
  }
  return String(Number(value.toPrecision(4)));
}
const whole = value => Math.round(value).toLocaleString("en");
const percent = value => (100 * value).toFixed(1) + " %";
const signed = (value, digits) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
const between = ([, low, high]) => `${whole(low)} to ${whole(high)}`;

// What is told of a network: name, value, how it is written.
const FACTS = [
  ["negative log-likelihood", n => n.loss, v => v.toFixed(4)],
  ["hold-out accuracy", n => n.accuracy, percent],
  ["estimated: images it saw", n => n.images < LARGEST.images && n.images || null, n => `${whole(n)} of ${whole(LARGEST.images)}`],
  ["predicted images/s", n => n.predicted, whole],
  ["measured images/s", n => n.measured?.[0], whole],
  ["MACs", n => n.macs, short],
  ["parameters", n => n.parameters, short],
];
// and what a search asked its latency table beside.
for (const name of new Set(Object.values(NETWORKS).flatMap(n => Object.keys(n.costs)))) {
  FACTS.push([name, n => n.costs[name], short]);
}
const role = key => Object.keys(ROLES).find(name => ROLES[name] === key) ?? "";
const story = network => network.number ? `no. ${network.number}, ${network.origin}` : "the largest of its space";
const heads = network => network.stages.map(([tokens, width, blocks], s) =>
  `<tr><td>stage ${s + 1}: ${width} channels</td><td>${blocks.map(b => b ? `${b[2]}/${b[1]}` : "–").join(" ")}</td></tr>`).join("");

function networkCard(key) {
  const network = NETWORKS[key];
  if (!network) return null;
  const rows = FACTS.filter(([, get]) => get(network) != null)
    .map(([name, get, write]) => `<tr><td>${name}</td><td>${write(get(network))}</td></tr>`);
  if (network.measured) rows.push(`<tr><td>95 % interval</td><td>${between(network.measured)}</td></tr>`);
  const card = document.createElement("div");
  card.className = "card";
  card.innerHTML = `<b>${key}</b> ${role(key)}<br>${story(network)}${glyph(network)}` +
    `<table>${heads(network)}<tr><td colspan="2">&nbsp;</td></tr>${rows.join("")}</table>`;
  return card;
}

// Two slots; a click fills the one that was set longest ago, or empties the one that holds it.
const slots = [{ name: "A", key: ROLES.winner, since: 1 }, { name: "B", key: ROLES.largest, since: 0 }];
let clicks = 2;

function pinNetwork(key) {
  if (!NETWORKS[key]) return;
  const held = slots.find(slot => slot.key === key);
  const slot = held ?? slots.find(slot => !slot.key) ?? slots.toSorted((p, q) => p.since - q.since)[0];
  slot.key = held ? null : key;
  slot.since = clicks++;
  compare();
}

function compare() {
  document.querySelectorAll(".pin-a, .pin-b").forEach(e => e.classList.remove("pin-a", "pin-b"));
  document.querySelectorAll("svg .pin").forEach(e => e.remove());
  for (const { name, key } of slots) {
    for (const element of document.querySelectorAll(`[data-key="${key}"]`)) {
      element.classList.add(`pin-${name.toLowerCase()}`);
      if (element.closest("svg.chart")) mark(element, name);
    }
  }
  const [a, b] = slots.map(slot => NETWORKS[slot.key]);
  const title = slot => `<span class="pin-${slot.name.toLowerCase()}"><b>${slot.name}</b> ` +
    (slot.key ? `${slot.key} ${role(slot.key)}` : "click a point") + "</span>";
  const cell = (network, get, write) => network && get(network) != null ? write(get(network)) : "";
  const rows = FACTS.map(([name, get, write]) => {
    const change = a && b && get(a) && get(b) != null
      ? write === percent ? signed(100 * (get(b) - get(a)), 1) + " points" : signed(100 * (get(b) / get(a) - 1), 1) + " %" : "";
    return `<tr><td>${name}</td><td>${cell(a, get, write)}</td><td>${cell(b, get, write)}</td><td>${change}</td></tr>`;
  });
  const figure = (slot, network, other) => `<figure><figcaption>${title(slot)}</figcaption>` +
    `${network ? glyph(network, other) + story(network) : ""}</figure>`;
  document.getElementById("compare").innerHTML = "<h3>Two networks compared</h3>" +
    "<p>Click any point or row to put its network here.</p>" +
    `<div class="glyphs">${figure(slots[0], a, b)}${figure(slots[1], b, a)}</div>` +
    `<table><thead><tr><th></th><th class="pin-a"><b>A</b></th><th class="pin-b"><b>B</b></th>` +
    `<th>B against A</th></tr></thead><tbody>${rows.join("")}</tbody></table>`;
}

function mark(point, name) {
  const { e, f } = point.transform.baseVal.getItem(0).matrix;
  const add = (tag, attributes) => {
    const part = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) part.setAttribute(key, value);
    part.setAttribute("class", `pin pin-${name.toLowerCase()}`);
    return point.ownerSVGElement.appendChild(part);
  };
  add("circle", { cx: e, cy: f, r: 11 });
  add("text", { x: e, y: f - 15 }).textContent = name;
}

compare();
