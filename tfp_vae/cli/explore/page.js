"use strict";
// The page of `tfp-vae explore`: it asks the server that it comes from, and nobody else.

const $ = (id) => document.getElementById(id);
const COLOURS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"];
const FEW_SLIDERS = 8;
const STEPS = 9;
const NEAR = 18; // pixels from a point that still mean this point
const QUIET = 500; // milliseconds without a change until a screen reader is told
const MOST_TOLD = 12; // numbers of a table that a screen reader is told
const HOLE = [176, 196, 222]; // colour of missing pixels

let model; // what the server says of the model
let x = []; // what is edited, a value for each view
let edits = 0; // how often it has been edited
let edited = null; // the field of the last edit
let editors = []; // a function for each view that shows a value in its editor
let z = []; // where the sliders stand
let posterior = null; // mean and standard deviation of q(z|x)
let condition = null;
let place = 0; // the chosen example; null if x is none of them
let ends = null; // codes of the two ends of the path
let draw = 0; // seed of the next draw from the prior

// Small helpers

function make(tag, properties = {}, ...children) {
  const { attributes = {}, ...own } = properties;
  const element = Object.assign(document.createElement(tag), own);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const rounded = (value, digits) => String(Number.isInteger(value) ? value : Number(value.toPrecision(digits)));
const shown = (value) => (value === null ? "missing" : rounded(value, 4));
const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const textOf = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));

async function ask(name, question) {
  const start = performance.now();
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(question) };
  let answer;
  try {
    answer = await fetch(name, question === undefined ? {} : options);
  } catch {
    throw new Error("The program that serves this page has ended. Start tfp-vae explore again.");
  }
  const content = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(content.error), { isRefusal: answer.status === 400 });
  $("time").textContent = `Answered in ${(performance.now() - start).toFixed(0)} ms.`;
  return content;
}

// One question of a kind at a time; of those that come meanwhile, the last one is asked.
function latest(run) {
  let isBusy = false;
  let waiting = null;
  return async function call(...given) {
    if (isBusy) {
      waiting = given;
      return;
    }
    isBusy = true;
    try {
      await run(...given);
      $("error").hidden = true;
    } catch (error) {
      $("error").textContent = error.message;
      $("error").hidden = false;
    }
    isBusy = false;
    if (waiting) {
      const next = waiting;
      waiting = null;
      await call(...next);
    }
  };
}

// What a screen reader is told besides the status, when nothing has followed for a moment.
let telling = null;
function tell(words) {
  clearTimeout(telling);
  telling = setTimeout(() => ($("heard").textContent = words), QUIET);
}

function listed(view, values, write) {
  const some = view.fields.slice(0, MOST_TOLD).map((field, at) => `${field.title} ${write(field, values[at])}`);
  return some.join(", ") + (view.fields.length > MOST_TOLD ? `, and ${view.fields.length - MOST_TOLD} more` : "");
}

// Views: how a value is shown, edited, shown in steps, and told in words

function paint(canvas, view, value) {
  canvas.width = view.width;
  canvas.height = view.height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(view.width, view.height);
  const pixels = bytesOf(value.pixels);
  for (let place = 0; place < view.width * view.height; place++) {
    for (let channel = 0; channel < 3; channel++) {
      image.data[4 * place + channel] = pixels[view.channels * place + (view.channels === 3 ? channel : 0)];
    }
    image.data[4 * place + 3] = 255;
  }
  for (const hole of value.holes) image.data.set(HOLE, 4 * Math.floor(hole / view.channels));
  context.putImageData(image, 0, 0);
}

const PictureView = {
  show(view, value, label) {
    const canvas = make("canvas", { attributes: { role: "img", "aria-label": `${label}: ${PictureView.words(view, value)}` } });
    paint(canvas, view, value);
    return make("div", { className: "picture" }, canvas);
  },

  edit(view, change) {
    const label = `Drawing of ${view.name}, ${view.height} by ${view.width} pixels`;
    const attributes = { role: "application", "aria-label": label, "aria-describedby": "edit-help", tabindex: "0" };
    const canvas = make("canvas", { attributes });
    const cursor = make("div", { className: "cursor" });
    let pixels = new Uint8Array(view.height * view.width * view.channels);
    let holes = new Set(); // places of missing values
    let row = Math.floor(view.height / 2);
    let column = Math.floor(view.width / 2);
    let last = null;

    const show = (value) => {
      if (last) return; // a drawing goes on
      pixels = bytesOf(value.pixels);
      holes = new Set(value.holes);
      paint(canvas, view, value);
    };
    const send = () => {
      const value = { pixels: textOf(pixels), holes: [...holes] };
      paint(canvas, view, value);
      change(value);
    };
    const ink = () => {
      if (view.channels === 1) return [Number($("ink").value)];
      return [1, 3, 5].map((start) => parseInt($("colour").value.slice(start, start + 2), 16));
    };
    const dab = (y, x, radius, colour) => {
      for (let i = Math.max(0, Math.floor(y - radius - 1)); i <= Math.min(view.height - 1, y + radius + 1); i++) {
        for (let j = Math.max(0, Math.floor(x - radius - 1)); j <= Math.min(view.width - 1, x + radius + 1); j++) {
          const weight = clamp(radius + 0.5 - Math.hypot(i + 0.5 - y, j + 0.5 - x), 0, 1);
          if (!weight) continue;
          for (let channel = 0; channel < view.channels; channel++) {
            const at = (i * view.width + j) * view.channels + channel;
            pixels[at] = Math.round(pixels[at] + (colour[channel] - pixels[at]) * weight);
            holes.delete(at);
          }
        }
      }
    };
    // What is at the cursor, in each channel.
    const seen = () => Array.from({ length: view.channels }, (_, channel) => {
      const at = (row * view.width + column) * view.channels + channel;
      const name = view.channels === 3 ? `${["red", "green", "blue"][channel]} ` : "";
      return name + (holes.has(at) ? "missing" : `${pixels[at]} of 255`);
    }).join(", ");
    const where = (event) => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientY - box.top) / box.height) * view.height, ((event.clientX - box.left) / box.width) * view.width];
    };
    const move = (event) => {
      const [y, x] = where(event);
      const [fromY, fromX] = last.length ? last : [y, x];
      const steps = Math.ceil(2 * Math.hypot(y - fromY, x - fromX)) + 1;
      for (let step = 1; step <= steps; step++) {
        const share = step / steps;
        dab(fromY + share * (y - fromY), fromX + share * (x - fromX), Number($("brush").value), ink());
      }
      last = [y, x];
      send();
    };
    const stop = () => {
      if (last) send();
      last = null;
    };
    const mark = () => {
      Object.assign(cursor.style, {
        left: `${(100 * column) / view.width}%`, top: `${(100 * row) / view.height}%`,
        width: `${100 / view.width}%`, height: `${100 / view.height}%`,
      });
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture?.(event.pointerId);
      last = [];
      move(event);
    });
    canvas.addEventListener("pointermove", (event) => last && move(event));
    canvas.addEventListener("pointerup", stop);
    canvas.addEventListener("pointercancel", stop);
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      const is = (...keys) => keys.includes(event.key);
      if (!(event.key in moves) && !is(" ", "Enter", "Delete", "Backspace")) return;
      event.preventDefault();
      if (event.key in moves) {
        row = clamp(row + moves[event.key][0], 0, view.height - 1);
        column = clamp(column + moves[event.key][1], 0, view.width - 1);
        mark();
        $("status").textContent = `Row ${row + 1}, column ${column + 1}: ${seen()}.`;
        return;
      }
      const colour = is(" ", "Enter") ? ink() : Array(view.channels).fill(0);
      const at = (row * view.width + column) * view.channels;
      pixels.set(colour, at);
      colour.forEach((_, channel) => holes.delete(at + channel));
      send();
    });
    mark();
    return { element: make("div", { className: "picture editable" }, canvas, cursor), show };
  },

  steps(view, values, labels) {
    const figures = values.map((value, step) =>
      make("figure", {}, PictureView.show(view, value, labels[step]), make("figcaption", { textContent: labels[step] })));
    return make("div", { className: "steps" }, ...figures);
  },

  words(view, value) {
    const pixels = bytesOf(value.pixels);
    const mean = pixels.reduce((sum, pixel) => sum + pixel, 0) / pixels.length;
    return `${view.name}, ${view.height} by ${view.width} pixels, mean ${mean.toFixed(0)} of 255`;
  },

  help: "Draw with the pointer. With the keyboard, arrows move, the space bar paints, Delete erases.",
};

const TextView = {
  words: (view, value) => value || "(empty)",

  show: (view, value, label) => make("p", { className: "text", textContent: value || "(empty)", attributes: { role: "group", "aria-label": label } }),

  edit(view, change) {
    const attributes = { "aria-label": "Text to encode", "aria-describedby": "edit-help" };
    const area = make("textarea", { spellcheck: false, attributes });
    area.addEventListener("input", () => change(area.value, area));
    const show = (value) => {
      if (document.activeElement !== area) area.value = value;
    };
    return { element: area, show };
  },

  steps: (view, values) => make("ol", { className: "lines", attributes: { "aria-label": "Steps of the path" } }, ...values.map((value) => make("li", { textContent: value || "(empty)" }))),

  help: "Change the text to see what becomes of it; only tokens that the model knows are taken.",
};

// A table with a row for each field, and in it a cell for each of some examples.
function gridOf(view, examples, cell, { label, heads }) {
  const rows = view.fields.map((field, at) =>
    make("tr", {}, make("th", { scope: "row", textContent: field.title }), ...examples.map((values) => cell(field, values[at]))));
  const table = make("table", label ? { attributes: { "aria-label": label } } : {}, make("tbody", {}, ...rows));
  if (heads) table.prepend(make("thead", {}, make("tr", {}, make("td"), ...heads.map((head) => make("th", { scope: "col", textContent: head })))));
  return table;
}

// The values of a table are texts in the units of its columns; null is a missing one.
const ColumnsView = {
  write(field, value) {
    if (value === null) return "missing";
    return "seconds" in field ? value.replace("T", " ") : value || "(empty)";
  },

  words: (view, values) => listed(view, values, ColumnsView.write),

  cell: (field, value) => make("td", { className: value === null ? "none" : "", textContent: ColumnsView.write(field, value) }),

  show: (view, values, label) => gridOf(view, [values], ColumnsView.cell, { label }),

  input(view, field) {
    if (field.choices) {
      const options = field.choices.map((name) => make("option", { textContent: name || "(empty)", value: `=${name}` }));
      if (view.missing) options.unshift(make("option", { textContent: "missing", value: "" }));
      return make("select", {}, ...options);
    }
    if ("seconds" in field) {
      const isDay = field.seconds % 86400 === 0;
      return make("input", { type: isDay ? "date" : "datetime-local", step: isDay ? 1 : field.seconds < 1 ? "any" : field.seconds });
    }
    return make("input", { type: "number", step: 10 ** -field.decimals, placeholder: view.missing ? "missing" : "" });
  },

  edit(view, change) {
    let values = [];
    // A date has no place for the word in its field.
    const marks = view.fields.map((_, at) => make("small", { className: "none", id: `no-column-${at}` }));
    const mark = (at) => (marks[at].textContent = values[at] === null ? "missing" : "");
    const inputs = view.fields.map((field) => ("choices" in field || "seconds" in field || "decimals" in field ? ColumnsView.input(view, field) : null));
    const rows = inputs.map((input, at) => {
      const { title, values: told } = view.fields[at];
      const about = make("small", { textContent: told, id: `about-column-${at}`, hidden: "choices" in view.fields[at] });
      if (!input) return make("tr", {}, make("th", { scope: "row" }, title, about), make("td"));
      Object.assign(input, { id: `column-${at}` }).setAttribute("aria-describedby", `${about.id} ${marks[at].id}`);
      const beside = "seconds" in view.fields[at] ? [marks[at]] : [];
      input.addEventListener("input", () => {
        if (input.validity.badInput || (input.value === "" && !view.missing)) return; // half written
        values[at] = input.value === "" ? null : input.value.slice(view.fields[at].choices ? 1 : 0);
        mark(at);
        change([...values], input);
      });
      return make("tr", {}, make("th", { scope: "row" }, make("label", { htmlFor: input.id, textContent: title }), about), make("td", {}, input, ...beside));
    });
    const show = (given) => {
      values = [...given];
      inputs.forEach((input, at) => {
        if (!input) rows[at].lastChild.replaceWith(ColumnsView.cell(view.fields[at], values[at]));
        else if (document.activeElement !== input) input.value = values[at] === null ? "" : (view.fields[at].choices ? "=" : "") + values[at];
        mark(at);
      });
    };
    return { element: make("table", { className: "columns" }, make("tbody", {}, ...rows)), show };
  },

  steps: (view, values, heads) => gridOf(view, values, ColumnsView.cell, { heads, label: "Steps of the path" }),

  help: "Change the values to see what becomes of them.",
};

const NumbersView = {
  words: (view, values) => listed(view, values, (_, value) => shown(value)),

  cell: (field, value) => make("td", { textContent: shown(value) }),

  show: (view, values, label) => gridOf(view, [values], NumbersView.cell, { label }),

  edit(view, change) {
    let values = []; // with more digits than the fields
    const inputs = view.fields.map((field) => {
      const input = make("input", { type: "number", step: field.whole ? "1" : "any", placeholder: view.missing ? "missing" : "" });
      input.setAttribute("aria-label", `${field.title}, from ${shown(field.low)} to ${shown(field.high)} in the examples`);
      return input;
    });
    const rows = inputs.map((input, at) => {
      input.addEventListener("input", () => {
        if (input.validity.badInput) return; // half written
        values[at] = input.value === "" ? null : Number(input.value);
        if (view.missing || !values.includes(null)) change([...values], input);
      });
      return make("tr", {}, make("th", { scope: "row", textContent: view.fields[at].title }), make("td", {}, input));
    });
    const show = (given) => {
      values = [...given];
      inputs.forEach((input, at) => {
        if (document.activeElement !== input) input.value = values[at] === null ? "" : rounded(values[at], 5);
      });
    };
    return { element: make("table", {}, make("tbody", {}, ...rows)), show };
  },

  steps: (view, values, heads) => gridOf(view, values, NumbersView.cell, { heads, label: "Steps of the path" }),

  help: "Change the numbers to see what becomes of them.",
};

const CurveView = {
  words(view, values) {
    const known = values.filter((value) => value !== null);
    return `curve of ${values.length} values${known.length ? `, from ${shown(Math.min(...known))} to ${shown(Math.max(...known))}` : ""}`;
  },

  show(view, values, label) {
    const low = Math.min(...view.fields.map((field) => field.low));
    const high = Math.max(...view.fields.map((field) => field.high));
    const name = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(name, "svg");
    const path = document.createElementNS(name, "path");
    const up = (value) => 97 - (94 * (value - low)) / (high - low || 1);
    const last = values.length / view.curves - 1;
    const lines = Array.from({ length: view.curves }, (_, curve) => {
      const own = values.filter((_, at) => at % view.curves === curve).map((value, at) => [(100 * at) / last, value]);
      return own.filter(([, value]) => value !== null).map(([at, value], rank) => `${rank ? "L" : "M"}${at.toFixed(2)} ${up(value).toFixed(2)}`);
    });
    path.setAttribute("d", lines.flat().join(" "));
    for (const [key, value] of Object.entries({ class: "curve", viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": `${label}: ${CurveView.words(view, values)}` })) {
      svg.setAttribute(key, value);
    }
    svg.append(path);
    return svg;
  },
  edit(view) {
    const holder = make("div");
    return { element: holder, show: (values) => holder.replaceChildren(CurveView.show(view, values, "x")) };
  },
  steps(view, values, labels) {
    const figures = values.map((value, step) => make("figure", {}, CurveView.show(view, value, labels[step]), make("figcaption", { textContent: labels[step] })));
    return make("div", { className: "steps" }, ...figures);
  },
  help: "",
};

const kindOf = (view) => (view.is_curve ? CurveView : { picture: PictureView, text: TextView, columns: ColumnsView, numbers: NumbersView }[view.kind]);

function showIn(holder, values, label) {
  holder.replaceChildren(...model.views.map((view, at) => kindOf(view).show(view, values[at], label)));
}

const inWords = (values) => model.views.map((view, at) => kindOf(view).words(view, values[at])).join("; ");

// What the server is asked, and where its answers go

const chooseExample = latest(async (number) => {
  place = clamp(Math.round(number) || 0, 0, model.points.length - 1);
  $("place").value = place;
  const seen = await ask("example", { place });
  takeSeen(seen);
  const label = model.labels ? `, ${model.label} ${shown(model.labels[place])}` : "";
  say(`Example ${place}${label}`, seen);
});

const encode = latest(async () => {
  place = null;
  $("place").value = "";
  const [own, field] = [edits, edited];
  const seen = await ask("encode", { x, condition }).catch((error) => {
    if (error.isRefusal) markRefused(field);
    throw error;
  });
  takeSeen(seen, own === edits);
  say("Your own x", seen);
});

const decode = latest(async () => {
  const decoded = (await ask("decode", { z: [z], condition })).x[0];
  showIn($("decoded"), decoded, "p(x|z) at the sliders");
  tell(`p(x|z) at the sliders: ${inWords(decoded)}`);
});

const drawFromPrior = latest(async () => {
  const drawn = await ask("sample", { seed: draw, condition });
  draw += 1;
  moveTo(drawn.z, "The sliders stand at a draw from the prior.");
});

const choosePath = latest(async ({ isTold }) => {
  const [from, to] = await Promise.all(["from", "to"].map((id) => ask("example", { place: Number($(id).value) })));
  ends = { from: from.z, to: to.z, condition: from.condition };
  const steps = Array.from({ length: STEPS }, (_, step) => between(step / (STEPS - 1)));
  const decoded = (await ask("decode", { z: steps, condition: from.condition })).x;
  const labels = steps.map((_, step) => (step === 0 ? "from" : step === STEPS - 1 ? "to" : `${step} of ${STEPS - 1}`));
  const rows = model.views.map((view, at) => kindOf(view).steps(view, decoded.map((values) => values[at]), labels));
  $("path").replaceChildren(...rows);
  drawMap();
  if (isTold) $("status").textContent = `The path goes from example ${$("from").value} to ${$("to").value}.`;
});

// The first field that was refused stays marked until all are taken.
function markRefused(field) {
  if (!field || document.querySelector("[aria-invalid]")) return;
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-errormessage", "error");
}

// An answer to an earlier edit leaves the later one as it is.
function takeSeen(seen, isNewest = true) {
  if (isNewest) {
    x = seen.x;
    x.forEach((value, at) => editors[at].show(value));
    if (seen.condition) setCondition(seen.condition);
    document.querySelectorAll("[aria-invalid]").forEach((field) => field.removeAttribute("aria-invalid"));
  }
  showIn($("reconstruction"), seen.reconstruction, "Reconstruction");
  showIn($("decoded"), seen.reconstruction, "p(x|z) at the sliders");
  tell(`Reconstruction: ${inWords(seen.reconstruction)}`);
  posterior = { mean: seen.z, stddev: seen.stddev };
  z = [...seen.z];
  showScore(seen);
  showSliders();
  drawMap();
}

function showScore(seen) {
  const titles = { elbo: "-ELBO", log_likelihood: "-log-likelihood", kl: "KL" };
  const rows = Object.entries(titles).filter(([name]) => name in seen.score).map(([name, title]) => {
    const value = seen.score[name];
    return [title, value === null ? "infinite" : `${(name === "kl" ? value : -value).toFixed(2)} nats`];
  });
  $("score").replaceChildren(...rows.map(([title, value]) => make("div", {}, make("dt", { textContent: title }), make("dd", { textContent: value }))));
}

function say(what, seen) {
  const [title, value] = $("score").firstChild.children;
  const share = `better than ${(100 * seen.better_than).toFixed(0)}% of the examples`;
  $("status").textContent = `${what}: ${title.textContent} ${value.textContent}, ${share}.`;
}

function moveTo(code, line) {
  z = [...code];
  if (line) $("status").textContent = line;
  showSliders();
  drawMap();
  decode();
}

const between = (share) => ends.from.map((value, at) => value + share * (ends.to[at] - value));

// Sliders

function makeSliders() {
  const rows = model.order.map((dim, rank) => {
    const input = make("input", { type: "range", id: `z-${dim}`, min: -model.extent, max: model.extent, step: 0.05 });
    const size = model.importance[dim].toFixed(2);
    const told = model.ordered_by === "KL" ? `${size} nats` : `variance ${size}`;
    const label = make("label", { htmlFor: input.id, textContent: model.latents[dim] }, make("small", { textContent: told }));
    const output = make("output", { htmlFor: input.id, attributes: { "aria-live": "off" } }); // the slider tells it
    const bar = make("div", { className: "posterior", attributes: { "aria-hidden": "true" } }, make("div"));
    input.addEventListener("input", () => {
      z[dim] = Number(input.value);
      showSlider(dim);
      drawMap();
      decode();
    });
    const row = make("div", { className: "slider" }, label, input, output, bar);
    row.hidden = rank >= FEW_SLIDERS;
    return row;
  });
  $("sliders").replaceChildren(...rows);
  const by = model.ordered_by === "KL" ? "the mean KL divergence from the prior over the examples" : "the variance of the codes";
  $("latents-help").textContent = `Ordered by ${by}. The bar below a slider is q(z|x): its mean, one standard deviation to each side.`;
  $("more").hidden = rows.length <= FEW_SLIDERS;
  $("more").textContent = `Show all ${rows.length}`;
}

function showSlider(dim) {
  const input = $(`z-${dim}`);
  if (Number(input.value) !== z[dim]) input.value = z[dim];
  const around = posterior ? `; q(z|x) ${posterior.mean[dim].toFixed(2)}${posterior.stddev ? ` ± ${shown(posterior.stddev[dim])}` : ""}` : "";
  input.setAttribute("aria-valuetext", z[dim].toFixed(2) + around);
  input.parentElement.querySelector("output").textContent = z[dim].toFixed(2);
  const bar = input.parentElement.querySelector(".posterior div");
  const share = (value) => 50 + (50 * value) / model.extent;
  const spread = posterior.stddev?.[dim] ?? 0;
  bar.style.left = `${share(posterior.mean[dim] - spread)}%`;
  bar.style.width = `${(100 * spread) / model.extent}%`;
}

const showSliders = () => model.order.forEach(showSlider);

// The condition

function makeCondition() {
  if (!model.condition) return;
  const holder = $("condition-label");
  holder.hidden = false;
  const change = (event) => {
    const values = [...holder.querySelectorAll("select, input")].map((field) => Number(field.value));
    condition = values;
    edits += 1;
    edited = event.target;
    encode();
  };
  const labels = model.condition.labels;
  const fields = Array.from({ length: model.condition.size }, (_, at) => {
    const field = labels === null
      ? make("input", { type: "number", step: "any", value: 0 })
      : make("select", {}, ...Array.from({ length: labels }, (_, at) => make("option", { textContent: at, value: at })));
    if (model.condition.size > 1) field.setAttribute("aria-label", `Condition, ${at + 1} of ${model.condition.size}`);
    field.addEventListener("change", change);
    return field;
  });
  holder.replaceChildren("Condition ", ...fields);
}

function setCondition(values) {
  condition = values;
  [...$("condition-label").querySelectorAll("select, input")].forEach((field, at) => (field.value = values[at]));
}

// The map

let toPixels = (point) => point;
let toPoint = (pixel) => pixel;
let drag = null;

const project = (code) => model.components.map((row) => row.reduce((sum, value, at) => sum + value * (code[at] - model.mean[at]), 0));

let names = null; // the values of the label, if each can have a colour
let colours = []; // of each point

function makeColours() {
  const known = [...new Set(model.labels)].sort((a, b) => a - b);
  names = model.labels && known.length <= COLOURS.length ? known : null;
  const [low, high] = [known[0], known[known.length - 1]];
  colours = model.points.map((_, at) => {
    if (!model.labels) return COLOURS[0];
    if (names) return COLOURS[names.indexOf(model.labels[at])];
    return `hsl(${240 - (200 * (model.labels[at] - low)) / (high - low || 1)} 75% 50%)`;
  });
}

function fitMap() {
  const canvas = $("map");
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
  const ends = [0, 1].map((axis) => {
    const values = model.points.map((point) => point[axis]);
    return [Math.min(...values), Math.max(...values)];
  });
  const size = ends.map(([low, high]) => high - low || 1);
  const zoom = Math.min((width - 40) / size[0], (height - 40) / size[1]);
  const centre = ends.map(([low, high]) => (low + high) / 2);
  toPixels = ([a, b]) => [width / 2 + zoom * (a - centre[0]), height / 2 - zoom * (b - centre[1])];
  toPoint = ([a, b]) => [centre[0] + (a - width / 2) / zoom, centre[1] - (b - height / 2) / zoom];
  drawMap();
}

function drawMap() {
  const canvas = $("map");
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink");
  const circle = (point, radius) => {
    pen.beginPath();
    pen.arc(...toPixels(point), radius, 0, 2 * Math.PI);
  };
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.globalAlpha = 0.75;
  model.points.forEach((point, at) => {
    pen.fillStyle = colours[at];
    circle(point, model.points.length > 500 ? 3 : 4);
    pen.fill();
  });
  pen.globalAlpha = 1;
  drawNames(pen, style);
  const line = drag?.to ? [toPixels(model.points[drag.from]), drag.to] : ends && [toPixels(project(ends.from)), toPixels(project(ends.to))];
  pen.strokeStyle = pen.fillStyle = ink;
  pen.lineWidth = 2;
  if (line) {
    pen.setLineDash([5, 4]);
    pen.beginPath();
    pen.moveTo(...line[0]);
    pen.lineTo(...line[1]);
    pen.stroke();
    pen.setLineDash([]);
  }
  if (place !== null) {
    circle(model.points[place], 8);
    pen.stroke();
  }
  if (z.length) {
    const [a, b] = toPixels(project(z));
    pen.beginPath();
    pen.moveTo(a - 7, b);
    pen.lineTo(a + 7, b);
    pen.moveTo(a, b - 7);
    pen.lineTo(a, b + 7);
    pen.stroke();
  }
}

// The name of each label at the middle of its points, also for those who cannot tell colours apart.
function drawNames(pen, style) {
  if (!names || names.length < 2) return;
  pen.font = "bold 15px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.lineWidth = 4;
  for (const label of names) {
    const own = model.points.filter((_, at) => model.labels[at] === label);
    const middle = [0, 1].map((axis) => own.map((point) => point[axis]).sort((a, b) => a - b)[Math.floor(own.length / 2)]);
    pen.strokeStyle = style.getPropertyValue("--paper");
    pen.fillStyle = style.getPropertyValue("--ink");
    pen.strokeText(label, ...toPixels(middle));
    pen.fillText(label, ...toPixels(middle));
  }
}

function nearest(pixel) {
  let best = null;
  model.points.forEach((point, at) => {
    const [a, b] = toPixels(point);
    const distance = Math.hypot(a - pixel[0], b - pixel[1]);
    if (distance <= NEAR && (!best || distance < best.distance)) best = { at, distance };
  });
  return best && best.at;
}

function makeMap() {
  makeColours();
  const canvas = $("map");
  const where = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture?.(event.pointerId);
    drag = { from: nearest(where(event)), start: where(event), to: null };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag || drag.from === null) return;
    const at = where(event);
    if (Math.hypot(at[0] - drag.start[0], at[1] - drag.start[1]) > 8) drag.to = at;
    drawMap();
  });
  canvas.addEventListener("pointercancel", () => (drag = null));
  canvas.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const { from, to } = drag;
    drag = null;
    const at = where(event);
    const end = nearest(at);
    if (to && end !== null && end !== from) {
      $("from").value = from;
      $("to").value = end;
      $("way").value = 0;
      choosePath({ isTold: true });
    } else if (!to && from !== null) {
      chooseExample(from);
    } else if (!to) {
      decodePlace(toPoint(at));
    }
    drawMap();
  });
  canvas.addEventListener("keydown", (event) => {
    const direction = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
    if (!direction) return;
    event.preventDefault();
    const [a, b] = toPixels(place === null ? project(z) : model.points[place]);
    let best = null;
    model.points.forEach((point, at) => {
      const [c, d] = toPixels(point);
      const ahead = (c - a) * direction[0] + (d - b) * direction[1];
      const aside = Math.abs((c - a) * direction[1]) + Math.abs((d - b) * direction[0]);
      if (at === place || ahead <= 0 || aside > ahead) return;
      if (!best || ahead + aside < best.far) best = { at, far: ahead + aside };
    });
    if (best) chooseExample(best.at);
  });
  $("axes").textContent = `Across: ${model.axes[0]}.${model.axes[1] ? ` Up: ${model.axes[1]}.` : ""} The cross is where the sliders stand.`;
  if (model.labels && !names) $("axes").textContent += ` Colours go from blue, the lowest ${model.label}, to yellow, the highest.`;
  $("legend").hidden = !names;
  $("legend").replaceChildren(...(names || []).map((value, at) => {
    const dot = make("span", { className: "dot" });
    dot.style.background = COLOURS[at];
    return make("li", {}, dot, `${model.label} ${shown(value)}`);
  }));
  new ResizeObserver(fitMap).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
}

// Move z in the plane of the map to a point, and leave it as it is across the plane.
function decodePlace(point) {
  const now = project(z);
  const moved = z.map((value, at) => value + model.components.reduce((sum, row, axis) => sum + (point[axis] - now[axis]) * row[at], 0));
  moveTo(moved, "The sliders stand at the place on the map.");
}

// Start

function makeEditors() {
  const made = model.views.map((view, at) => kindOf(view).edit(view, (value, field = null) => {
    x[at] = value;
    edits += 1;
    edited = field;
    encode();
  }));
  editors = made;
  $("x").replaceChildren(...made.map((one) => one.element));
  $("edit-help").textContent = [...new Set(model.views.map((view) => kindOf(view).help))].join(" ");
  const pictures = model.views.filter((view) => view.kind === "picture");
  if (model.views.every((view) => view.is_curve)) $("x-title").textContent = "x";
  $("tools").hidden = !pictures.length;
  $("ink-label").hidden = !pictures.some((view) => view.channels === 1);
  $("colour-label").hidden = !pictures.some((view) => view.channels === 3);
  const side = Math.min(...pictures.map((view) => Math.min(view.height, view.width)));
  if (pictures.length) $("brush").value = clamp(side / 20, 0.5, 3);
}

function listen() {
  const last = model.points.length - 1;
  for (const id of ["place", "from", "to"]) $(id).max = last;
  $("place").addEventListener("change", () => chooseExample(Number($("place").value)));
  $("previous").addEventListener("click", () => chooseExample(place ? place - 1 : last));
  $("next").addEventListener("click", () => chooseExample(place === null || place === last ? 0 : place + 1));
  $("sample").addEventListener("click", drawFromPrior);
  $("clear").addEventListener("click", () => {
    model.views.forEach((view, at) => {
      if (view.kind !== "picture") return;
      x[at] = { pixels: textOf(new Uint8Array(view.height * view.width * view.channels)), holes: [] };
      editors[at].show(x[at]);
    });
    edits += 1;
    edited = null;
    encode();
  });
  $("back").addEventListener("click", () => moveTo(posterior.mean, "The sliders stand at the mean of q(z|x)."));
  $("zero").addEventListener("click", () => moveTo(z.map(() => 0), "All latents are 0."));
  $("more").addEventListener("click", () => {
    const isShort = $("more").getAttribute("aria-expanded") === "false";
    [...$("sliders").children].forEach((row, rank) => (row.hidden = !isShort && rank >= FEW_SLIDERS));
    $("more").setAttribute("aria-expanded", String(isShort));
    $("more").textContent = isShort ? `Show the first ${FEW_SLIDERS}` : `Show all ${model.order.length}`;
  });
  for (const id of ["from", "to"]) $(id).addEventListener("change", () => choosePath({ isTold: true }));
  $("way").addEventListener("input", () => {
    if (!ends) return;
    if (ends.condition) setCondition(ends.condition);
    moveTo(between(Number($("way").value)));
    $("way").setAttribute("aria-valuetext", `${Math.round(100 * $("way").value)}% of the way`);
  });
}

async function start() {
  model = await ask("model");
  document.title = `${model.name}: tfp-vae explore`;
  $("name").textContent = model.name;
  $("note").textContent = model.note;
  $("main").hidden = false;
  makeEditors();
  makeSliders();
  makeCondition();
  makeMap();
  listen();
  $("to").value = Math.min(1, model.points.length - 1);
  fitMap();
  await chooseExample(0);
  await choosePath({ isTold: false });
}

start().catch((error) => {
  $("error").textContent = error.message;
  $("error").hidden = false;
});
