// Charts as SVG: they follow the colours of the page, and print sharply.

const COLOURS = 7;
const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
const dashes = (index) => DASHES[Math.floor(index / COLOURS) % DASHES.length];

/** Draws into a block of its own now, and again whenever its width changes. */
function responsive(draw) {
  const block = h("div", { class: "chart" });
  let width = 0;
  const redraw = () => { if (block.clientWidth > 0) { width = block.clientWidth; draw(block, width); } };
  // In the next frame: what an observer draws at once may call it again.
  new ResizeObserver(() => { if (Math.abs(block.clientWidth - width) > 1) requestAnimationFrame(redraw); }).observe(block);
  block.redraw = redraw;
  return block;
}

/** Round numbers from `low` to `high`; only whole ones, if `whole`. */
function ticks(low, high, count, whole = false) {
  const rough = Math.max((high - low) / Math.max(count, 1), whole ? 1 : 0);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.999);
  const list = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index += 1) list.push(index * step);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return list.map((value) => [value, Math.abs(value) >= 1e5 ? value.toExponential(1) : value.toFixed(Math.min(decimals, 8))]);
}

function range(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
  if (low > high) return [0, 1];
  if (low === high) return [low - 0.5, high + 0.5];
  return [low, high];
}

/** About how wide a text of a chart is, before it is drawn. */
const textWidth = (text) => 7 * text.length;

function swatch(index) {
  return s("svg", { class: "swatch", viewBox: "0 0 28 10" }, s("line", { class: `c${index % COLOURS}`, x1: 0, y1: 5, x2: 28, y2: 5, "stroke-width": 3, "stroke-dasharray": dashes(index) || null }));
}

/** Lines over a common axis. A series has `name`, `colour` (a number) and `points`, pairs in order; a `pale` one is in the background. `series()` returns those to draw. */
function lineChart(series, xName, yName) {
  const height = 340;
  let cursor = null;
  const chart = responsive((block, width) => {
    const shown = series();
    const points = shown.flatMap((one) => one.points);
    const [low, high] = range(points.map((point) => point[1]));
    const space = (high - low) * 0.05;
    const [left, right, top, bottom] = [58, width - 14, 12, height - 40];
    const [first, last] = range(points.map((point) => point[0]));
    const x = (value) => left + ((value - first) / (last - first)) * (right - left);
    const y = (value) => bottom - ((value - low + space) / (high - low + 2 * space)) * (bottom - top);
    const picture = s("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", tabindex: 0, "aria-label": `${yName} over ${xName}; the arrow keys move the cursor` });
    for (const [value, text] of ticks(low - space, high + space, 6)) {
      picture.append(s("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }), s("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, text));
    }
    // Nothing is between two epochs or two steps.
    const whole = points.every((point) => Number.isInteger(point[0]));
    for (const [value, text] of ticks(first, last, Math.max(2, Math.floor(width / 90)), whole)) {
      picture.append(s("text", { class: "tick", x: x(value), y: bottom + 18, "text-anchor": "middle" }, text));
    }
    picture.append(s("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }),
      s("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, xName));
    for (const one of shown) {
      const path = one.points.map(([px, py], index) => `${index === 0 ? "M" : "L"}${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join("");
      picture.append(one.points.length === 1
        ? s("circle", { class: `c${one.colour % COLOURS}`, fill: "currentColor", cx: x(one.points[0][0]), cy: y(one.points[0][1]), r: 3.5 })
        : s("path", { class: `line c${one.colour % COLOURS} ${one.pale ? "pale" : ""}`, "stroke-dasharray": dashes(one.colour) || null, d: path }, s("title", {}, one.name)));
    }
    const line = s("line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" });
    const tip = h("div", { class: "tip", hidden: true });
    picture.append(line);
    const places = [...new Set(points.map((point) => point[0]))].sort((one, other) => one - other);
    const show = (place) => {
      cursor = place;
      line.setAttribute("visibility", place === null ? "hidden" : "visible");
      tip.hidden = place === null;
      if (place === null) return;
      line.setAttribute("x1", x(place));
      line.setAttribute("x2", x(place));
      const at = shown.filter((one) => !one.pale).map((one) => [one, one.points.find((point) => point[0] === place)]).filter(([, point]) => point);
      at.sort((one, other) => other[1][1] - one[1][1]);
      const most = 10;
      const rows = at.slice(0, most).map(([one, point]) => h("div", {}, swatch(one.colour), h("span", {}, one.name), h("b", {}, number(point[1]))));
      tip.replaceChildren(h("div", { class: "muted" }, `${xName} ${number(place)}`), ...rows, at.length > most ? h("div", { class: "muted" }, `and ${at.length - most} more`) : "");
      const isRight = x(place) > width / 2;
      tip.style.left = isRight ? "auto" : `${x(place) + 12}px`;
      tip.style.right = isRight ? `${width - x(place) + 12}px` : "auto";
    };
    const nearest = (event) => {
      const at = event.clientX - picture.getBoundingClientRect().left;
      show(places.reduce((best, place) => (best === null || Math.abs(x(place) - at) < Math.abs(x(best) - at) ? place : best), null));
    };
    picture.addEventListener("pointermove", nearest);
    picture.addEventListener("pointerdown", nearest);
    picture.addEventListener("pointerleave", () => show(null));
    picture.addEventListener("blur", () => show(null));
    picture.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || places.length === 0) return;
      event.preventDefault();
      const index = cursor === null ? (step > 0 ? -1 : places.length) : places.indexOf(cursor);
      show(places[Math.min(places.length - 1, Math.max(0, index + step))]);
    });
    block.replaceChildren(picture, tip);
  });
  return h("figure", {}, h("figcaption", {}, yName), chart);
}

/** A square of numbers by true class (rows) and another class (columns). Colours are shares of a row. */
function matrix(title, classes, rows, show) {
  const dense = classes.length > 25;
  const body = rows.map((row, index) => {
    const sum = row.reduce((one, other) => one + other, 0) || 1;
    const cells = row.map((value, column) => {
      const cell = h("td", { title: `${classes[index]} → ${classes[column]}: ${show(value)} (${(100 * value / sum).toFixed(1)} %)`, class: value / sum > 0.5 && "full" }, dense || value === 0 ? "" : show(value));
      cell.style.setProperty("--share", (value / sum).toFixed(3));
      return cell;
    });
    return h("tr", {}, h("th", { scope: "row" }, dense ? "" : classes[index]), cells);
  });
  const head = h("tr", {}, h("td", { hidden: dense }), dense ? "" : classes.map((name) => h("th", { scope: "col" }, name)));
  if (!dense) head.replaceChild(h("th"), head.firstChild);
  return h("figure", {}, h("figcaption", {}, title), h("div", { class: "matrix", tabindex: 0 }, h("table", { class: dense && "dense" }, h("thead", {}, head), h("tbody", {}, body))));
}

/** Accuracy by confidence. A perfectly calibrated classifier is on the diagonal. */
function reliabilityChart(bins) {
  return responsive((block, available) => {
    const width = Math.min(available, 420);
    const [left, right, top, bottom] = [46, width - 16, 10, width - 40];
    const x = (value) => left + value * (right - left);
    const y = (value) => bottom - value * (bottom - top);
    const picture = s("svg", { viewBox: `0 0 ${width} ${width}`, role: "img", "aria-label": "Accuracy by confidence" });
    picture.style.maxWidth = `${width}px`;
    for (const [value, text] of ticks(0, 1, 5)) {
      picture.append(s("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
        s("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, text), s("text", { x: x(value), y: bottom + 18, "text-anchor": "middle" }, text));
    }
    const most = Math.max(...bins.map((bin) => bin.samples), 1);
    for (const bin of bins.filter((bin) => bin.samples > 0)) {
      const words = `${bin.samples} samples, confidence ${number(bin.confidence)}, accuracy ${number(bin.accuracy)}`;
      // The fewer samples, the paler.
      picture.append(s("rect", { class: "bar c0", x: x(bin.low) + 1, width: x(bin.high) - x(bin.low) - 2, y: y(bin.accuracy), height: bottom - y(bin.accuracy), opacity: 0.25 + 0.75 * Math.sqrt(bin.samples / most) }, s("title", {}, words)),
        s("circle", { class: "c1", fill: "currentColor", cx: x(bin.confidence), cy: y(bin.accuracy), r: 3.5 }, s("title", {}, words)));
    }
    picture.append(s("line", { class: "diagonal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }), s("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }),
      s("text", { x: (left + right) / 2, y: width - 4, "text-anchor": "middle" }, "confidence"),
      s("text", { transform: `rotate(-90 12 ${(top + bottom) / 2})`, x: 12, y: (top + bottom) / 2, "text-anchor": "middle" }, "accuracy"));
    block.replaceChildren(picture);
  });
}

/** When runs were. `rows` have a name and runs with `start`, `end`, `words` and `link`; long times without any run are cut out. */
function timeline(rows) {
  const runs = rows.flatMap((row) => row.runs).sort((one, other) => one.start - other.start);
  const busy = [];
  for (const run of runs) {
    const last = busy[busy.length - 1];
    if (last && run.start <= last[1]) last[1] = Math.max(last[1], run.end);
    else busy.push([run.start, run.end]);
  }
  const total = busy.reduce((sum, [start, end]) => sum + end - start, 0);
  const longest = Math.max(total * 0.04, 2);
  const parts = [];
  for (const [start, end] of busy) {
    const last = parts[parts.length - 1];
    if (last && start - last[1] <= longest) last[1] = end;
    else parts.push([start, end]);
  }
  return responsive((block, width) => {
    const lane = 13;
    const names = width < 560 ? 0 : 170;
    const whole = width - names - 12;
    // However many there are, most of the width is for the runs.
    const gap = Math.min(34, (0.4 * whole) / Math.max(parts.length - 1, 1));
    const room = whole - gap * (parts.length - 1);
    const all = parts.reduce((sum, [start, end]) => sum + end - start, 0) || 1;
    const x = (value) => {
      let left = names + 4;
      for (const [start, end] of parts) {
        if (value <= end + 1e-6) return left + ((Math.max(value, start) - start) / all) * room;
        left += ((end - start) / all) * room + gap;
      }
      return left - gap;
    };
    let y = 8;
    const picture = s("svg", { role: "img", "aria-label": "When each stage ran" });
    rows.forEach((row, index) => {
      const lanes = [];
      if (names === 0) y += 14;
      const top = y;
      for (const run of [...row.runs].sort((one, other) => one.start - other.start)) {
        let place = lanes.findIndex((end) => end <= run.start + 1e-6);
        if (place < 0) place = lanes.push(0) - 1;
        lanes[place] = run.end;
        const rect = s("rect", { class: `run c${index % COLOURS}`, x: x(run.start), width: Math.max(x(run.end) - x(run.start), 2), y: top + place * lane, height: lane - 2, rx: 2 }, s("title", {}, run.words));
        picture.append(s("a", { href: run.link, "aria-label": run.words }, rect));
      }
      const words = `${row.name} · ${row.words}`;
      picture.append(s("text", { class: "row-name", x: names === 0 ? 2 : names - 6, y: names === 0 ? top - 4 : top + 10, "text-anchor": names === 0 ? "start" : "end" }, names === 0 ? words : row.name));
      y = top + Math.max(lanes.length, 1) * lane + (names === 0 ? 6 : 5);
      picture.append(s("line", { class: "grid", x1: 0, x2: width, y1: y - 3, y2: y - 3 }));
    });
    let free = 0;
    parts.slice(1).forEach(([start], index) => {
      const middle = x(start) - gap / 2;
      const words = `+${duration(start - parts[index][1]).replace(/ \d\d (s|min)$/, "")}`;
      const half = textWidth(words) / 2;
      // At the end of the chart, it is moved to the left; where another one is, it is left out.
      const at = Math.min(middle, width - half);
      picture.append(s("line", { class: "gap", x1: middle, x2: middle, y1: 0, y2: y }, s("title", {}, words)));
      if (at - half < free) return;
      picture.append(s("text", { x: at, y: y + 14, "text-anchor": "middle" }, words));
      free = at + half + 6;
    });
    const [first, last] = [parts[0][0], parts[parts.length - 1][1]].map((value) => time(value).textContent);
    // Below those of the gaps; one of the two, where there is not room for both.
    const ends = y + (parts.length > 1 ? 30 : 14);
    picture.append(s("text", { x: names + 4, y: ends }, first));
    if (names + 4 + textWidth(first) + 12 + textWidth(last) < width - 8) picture.append(s("text", { x: width - 8, y: ends, "text-anchor": "end" }, last));
    const height = ends + 8;
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    block.replaceChildren(picture);
  });
}
