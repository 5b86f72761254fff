/* The explorer: the decoder, run in the page. Reads the elements #facts (JSON), #weights and #mu
 * (base64 of little-endian floats), fills #stage, and makes #scatter answer to clicks. */
(() => {
'use strict';
const byId = id => document.getElementById(id);
if (!byId('stage') || !byId('facts')) return;
const facts = JSON.parse(byId('facts').textContent);
const Z = facts.z, C = facts.classes, D = facts.layers[facts.layers.length - 1][1];

/* ---- numbers from text ---- */

function bytesOf(id) {
  const text = atob(byId(id).textContent.trim()), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function fromHalf(h) {
  const e = h >> 10 & 31, f = h & 1023, sign = h & 0x8000 ? -1 : 1;
  return sign * (e === 0 ? f * 2 ** -24 : (1024 + f) * 2 ** (e - 25));
}

function floatsOf(id, half) {
  const bytes = bytesOf(id);
  return half ? Float32Array.from(new Uint16Array(bytes.buffer), fromHalf) : new Float32Array(bytes.buffer);
}

/* ---- the decoder: sums in double over float weights (out,in), as `vae decode` within 1/255 ---- */

/* As in vae_math.h: absolute error below 1.5e-7. */
function erf(x) {
  const a = Math.abs(x), t = Math.min(a, 3.9);
  let p = 5.749521392317547e-07; /* written out: a loop over a list takes several times as long */
  p = p * t - 1.2244758181623183e-05;
  p = p * t + 0.00011210591765120625;
  p = p * t - 0.0005603369791060686;
  p = p * t + 0.0014584065647795796;
  p = p * t + 0.00012463342864066362;
  p = p * t - 0.019352341070771217;
  p = p * t + 0.10284419357776642;
  p = p * t + 0.6366111040115356;
  p = p * t + 1.1283793449401855;
  const y = a > 3.9 ? 1 : 1 - Math.exp(-p * t);
  return x < 0 ? -y : y;
}

const activations = {
  relu: x => x < 0 ? 0 : x,
  tanh: Math.tanh,
  softplus: x => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
  leaky_relu: x => x < 0 ? 0.01 * x : x,
  gelu: x => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
  silu: x => x / (1 + Math.exp(-x)),
};
const activate = activations[facts.activation];
const output = facts.sigmoid ? x => 1 / (1 + Math.exp(-x)) : x => x;
const weights = floatsOf('weights', facts.half);

/* A transposed convolution: adds to y, (H,W,C) and its biases as yet, what the kernels (c,ky,kx,C) from
 * `at` on make of x, (h,w,c). Pictures have the channel last. */
function convolveUp(y, x, at, [h, w, c, H, W, C, kernel, stride, pad]) {
  for (let p = 0; p < h * w; p++) {
    const y0 = Math.floor(p / w) * stride - pad, x0 = p % w * stride - pad;
    for (let o = 0; o < c; o++) {
      const v = x[p * c + o];
      if (v === 0) continue;
      let from = at + o * kernel * kernel * C;
      for (let ky = 0; ky < kernel; ky++, from += kernel * C) {
        if (y0 + ky < 0 || y0 + ky >= H) continue;
        const first = Math.max(0, -x0), last = Math.min(kernel, W - x0);
        let to = ((y0 + ky) * W + x0 + first) * C;
        for (let i = from + first * C; i < from + last * C; i++) y[to++] += v * weights[i];
      }
    }
  }
}

/* Means of p(x|z), D numbers; a conditional model's class is a one-hot behind z. */
function decode(z, label) {
  let h = new Float64Array(Z + C), at = 0;
  h.set(z);
  if (C > 0) h[Z + label] = 1;
  facts.layers.forEach(([n_in, n_out, conv], layer) => {
    const y = new Float64Array(n_out), bias = at + n_in * n_out;
    const f = layer + 1 < facts.layers.length ? activate : output;
    if (conv) {
      const channels = conv[5], n = conv[2] * conv[6] * conv[6] * channels;
      for (let i = 0; i < n_out; i++) y[i] = weights[at + n + i % channels];
      convolveUp(y, h, at, conv);
      for (let i = 0; i < n_out; i++) y[i] = f(y[i]);
      at += n + channels;
      h = y;
      return;
    }
    for (let o = 0; o < n_out; o++) {
      let sum = weights[bias + o];
      for (let i = 0; i < n_in; i++) sum += weights[at++] * h[i];
      y[o] = f(sum);
    }
    at += n_out;
    h = y;
  });
  return h;
}

/* A value of the model in the units of the data, which may have been standardized. */
const inUnits = (v, i) => facts.shift ? v * facts.scale[i] + facts.shift[i] : v;

/* ---- what is shown ---- */

function element(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) e.setAttribute(key, value);
  e.append(...children);
  return e;
}

function makePicture() {
  const canvas = element('canvas', {width: facts.width, height: facts.height, role: 'img',
    'aria-label': 'Picture decoded from z'});
  const context = canvas.getContext('2d', {willReadFrequently: true});
  const image = context.createImageData(facts.width, facts.height);
  const byte = v => v > 0 ? v < 1 ? Math.floor(v * 255 + 0.5) : 255 : 0;
  const n = facts.channels;
  return {node: canvas, draw(x) {
    for (let i = 0, o = 0; i < x.length; i += n, o += 4) {
      for (let c = 0; c < 3; c++) image.data[o + c] = byte(inUnits(x[i + (n === 3 ? c : 0)], i + (n === 3 ? c : 0)));
      image.data[o + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }};
}

/* Data that are no pictures: a bar for each value, and the values themselves as a table. */
function makeBars() {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  svg.setAttribute('viewBox', `0 0 ${D} 100`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', 'Bars of the decoded values; the table below has the numbers');
  svg.append(path);
  const scale = element('p', {class: 'fine'});
  const body = element('tbody');
  const cells = Array.from({length: D}, (_, i) => {
    const cell = element('td');
    body.append(element('tr', {}, element('th', {scope: 'row'}, facts.columns ? facts.columns[i] : String(i)), cell));
    return cell;
  });
  const table = element('details', {}, element('summary', {}, `${D} values`),
    element('div', {class: 'scroll', tabindex: 0}, element('table', {}, body)));
  table.open = D <= 8;
  let low = 0, high = facts.sigmoid ? 1 : 0;
  return {node: element('div', {class: 'bars'}, svg, scale, table), draw(x) {
    for (const v of x) { /* grows, but never shrinks: bars stay comparable while z moves */
      low = Math.min(low, v);
      high = Math.max(high, v);
    }
    const y = v => high > low ? 100 * (high - v) / (high - low) : 100;
    let d = '';
    x.forEach((v, i) => {
      d += `M${i + 0.1} ${y(0)}V${y(v)}h.8V${y(0)}z`;
      cells[i].textContent = inUnits(v, i).toPrecision(5);
    });
    path.setAttribute('d', d);
    scale.textContent = `Mean of each of ${D} values, from ${low.toPrecision(3)} to ${high.toPrecision(3)}` +
      (facts.shift ? ' standard deviations; the table has the units of the data' : '');
  }};
}

/* ---- the state: z, and how it was come by ---- */

const z = new Float64Array(Z);
const mu = byId('mu') ? floatsOf('mu', false) : null;
const screen = facts.picture ? makePicture() : makeBars();
const where = element('p', {class: 'where', id: 'where', 'aria-live': 'polite'});
const sliders = [];
let label = 0, example = -1, map = null;

function update(text, but) {
  screen.draw(decode(z, label));
  where.textContent = text;
  sliders.forEach((s, j) => { if (j !== but) s.show(z[j]); });
  if (map) map.mark();
}

function set(values, text) {
  for (let j = 0; j < Z; j++) z[j] = values[j];
  update(text);
}

function reset() {
  example = -1;
  set(new Float64Array(Z), 'z = 0, the middle of the prior');
}

function random() {
  example = -1;
  set(Float64Array.from({length: Z}, () => Math.sqrt(-2 * Math.log(1 - Math.random())) *
    Math.cos(2 * Math.PI * Math.random())), 'z drawn from the prior');
}

function showExample(i) {
  example = i;
  const known = facts.label ? facts.label[i] : -1;
  if (known >= 0 && known < C && facts.class_names[known] !== null) setLabel(known);
  set(mu.subarray(i * Z, (i + 1) * Z), `Example ${facts.row[i]}` +
    (known >= 0 ? `, label ${facts.label_names[known]}` : '') + ': its mean, decoded');
}

function step(by) {
  const n = facts.points;
  showExample(example < 0 ? (by > 0 ? 0 : n - 1) : (example + by + n) % n);
}

/* ---- controls ---- */

function makeSlider(j) {
  let bound = 3;
  for (let i = 0; mu && i < facts.points; i++) bound = Math.max(bound, Math.ceil(Math.abs(mu[i * Z + j])));
  const input = element('input', {type: 'range', min: -bound, max: bound, step: 'any', value: 0,
    id: `z${j}`, 'data-latent': j});
  const value = element('output', {for: `z${j}`}, '0.00');
  const name = element('label', {for: `z${j}`}, 'z', element('sub', {}, String(j)));
  if (facts.kl) input.title = `KL ${facts.kl[j].toFixed(2)} nats`;
  const write = v => { value.textContent = (v < 0 ? '\u2212' : '') + Math.abs(v).toFixed(2); };
  input.addEventListener('input', () => {
    z[j] = Number(input.value);
    example = -1;
    write(z[j]);
    update('z moved by hand', j);
  });
  sliders[j] = {show(v) {
    if (Math.abs(v) > Number(input.max)) {
      input.max = Math.ceil(Math.abs(v));
      input.min = -input.max;
    }
    input.value = v;
    write(v);
  }};
  return element('div', {class: 'slider'}, name, input, value);
}

function button(text, action, hint) {
  const b = element('button', {type: 'button', title: hint, 'aria-label': hint}, text);
  b.addEventListener('click', action);
  return b;
}

let setLabel = i => { label = i; };

function makeControls() {
  const buttons = element('div', {class: 'buttons'}, button('Random z', random, 'Random z, from the prior'),
    button('Reset', reset, 'Reset z to 0'));
  if (mu) {
    buttons.append(button('\u25c0 Back', () => step(-1), 'Back to the example before'),
      button('Next \u25b6', () => step(1), 'Next example'));
  }
  if (C > 0) {
    const choice = element('select', {id: 'class'});
    facts.class_names.forEach((name, c) => {
      if (name !== null) choice.append(element('option', {value: c}, name));
    });
    label = facts.class_names.findIndex(name => name !== null);
    choice.addEventListener('change', () => {
      label = Number(choice.value);
      update(where.textContent);
    });
    setLabel = i => { label = i; choice.value = i; };
    buttons.append(element('label', {for: 'class'}, 'class'), choice);
  }
  return buttons;
}

function makeSliders() {
  const first = 14, nodes = facts.order.map(makeSlider);
  const box = element('div', {class: 'sliders', role: 'group', 'aria-label': 'Latents'},
    ...nodes.slice(0, Z <= first + 4 ? Z : first));
  if (Z > first + 4) {
    box.append(element('details', {}, element('summary', {}, `${Z - first} more latents`),
      ...nodes.slice(first)));
  }
  return box;
}

/* ---- the map ---- */

function makeMap(svg) {
  const [left, top, right, bottom] = svg.dataset.area.split(' ').map(Number);
  const [x0, x1, y0, y1] = svg.dataset.range.split(' ').map(Number);
  const toX = v => left + (v - x0) / (x1 - x0) * (right - left);
  const toY = v => bottom - (v - y0) / (y1 - y0) * (bottom - top);
  const project = (from, at) => [0, 1].map(k => {
    let sum = 0;
    for (let j = 0; j < Z; j++) sum += (from[at + j] - facts.mean[j]) * facts.axis[k * Z + j];
    return sum;
  });
  const places = Array.from({length: facts.points}, (_, i) => project(mu, i * Z));
  const here = document.createElementNS('http://www.w3.org/2000/svg', 'circle');
  here.setAttribute('class', 'here');
  here.setAttribute('r', 7);
  svg.append(here);

  function go(event) {
    const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    if (p.x < left || p.x > right || p.y < top || p.y > bottom) return;
    if (Z === 2) { /* every place is a z */
      example = -1;
      set([x0 + (p.x - left) / (right - left) * (x1 - x0),
        y0 + (bottom - p.y) / (bottom - top) * (y1 - y0)], 'z taken from the map');
      return;
    }
    let best = 0, least = Infinity;
    places.forEach(([x, y], i) => {
      const away = (toX(x) - p.x) ** 2 + (toY(y) - p.y) ** 2;
      if (away < least) [best, least] = [i, away];
    });
    showExample(best);
  }
  svg.addEventListener('pointerdown', go);
  svg.addEventListener('pointermove', e => { if (e.buttons === 1 && e.pointerType === 'mouse') go(e); });
  return {mark() {
    const [x, y] = project(z, 0);
    here.setAttribute('cx', Math.min(right, Math.max(left, toX(x))));
    here.setAttribute('cy', Math.min(bottom, Math.max(top, toY(y))));
  }};
}

byId('stage').append(element('div', {class: 'screen'}, screen.node, where, makeControls()), makeSliders());
const scatter = document.querySelector('#scatter svg');
if (scatter && mu) map = makeMap(scatter);
document.documentElement.classList.add('alive');
if (mu) step(1); else reset();
})();
