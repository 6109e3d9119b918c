// Use the explorer's page as a person does, and write what was seen to the title.
"use strict";
const told = { violations: [], errors: [] };
addEventListener("securitypolicyviolation", (event) => told.violations.push(event.blockedURI));
addEventListener("error", (event) => told.errors.push(event.message));
addEventListener("unhandledrejection", (event) => told.errors.push(String(event.reason)));
HTMLCanvasElement.prototype.setPointerCapture = () => {}; // pointers made by scripts cannot be captured

const until = async (name, test) => {
  for (let i = 0; i < 300; i++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    if (test()) return;
  }
  told.errors.push(`not in time: ${name}`);
};
const press = (element, key) => {
  element.focus();
  element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
};
const pointer = (element, kind, [a, b]) => {
  const box = element.getBoundingClientRect();
  element.dispatchEvent(new PointerEvent(kind, { clientX: box.left + a, clientY: box.top + b, bubbles: true }));
};
const change = (element, kind, value) => {
  element.value = value;
  element.dispatchEvent(new Event(kind, { bubbles: true }));
};
const picture = (id) => $(id).querySelector("canvas").toDataURL();
const status = () => $("status").textContent;
const heard = () => $("heard").textContent;
const ready = () => until("start", () => $("path").children.length && status());

async function common() {
  await ready();
  told.first = status();
  const fields = [...document.querySelectorAll("input, select, textarea, button, canvas, [tabindex]")];
  told.nameless = fields
    .filter((one) => !one.closest("[hidden]"))
    .filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim() || one.getAttribute("aria-labelledby")))
    .map((one) => one.outerHTML);
  told.wide = document.documentElement.scrollWidth - innerWidth;
  if (innerWidth < 640) document.body.style.width = "390px"; // a phone's, which no window has here
  told.over = [...document.querySelectorAll(".pair > div")].filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.textContent);
  document.body.style.width = "";
  told.small = fields.filter((one) => one.matches("button, textarea") && one.offsetParent && one.offsetHeight < 30).length;
  told.paper = getComputedStyle(document.body).backgroundColor;
}

// How many sets a redraw of the map makes: its colours are those of the start.
function setsOfARedraw() {
  const own = Set;
  let sets = 0;
  Set = class extends own {
    constructor(...given) {
      super(...given);
      sets += 1;
    }
  };
  drawMap();
  Set = own;
  return sets;
}

async function digits() {
  told.sets = setsOfARedraw();
  const slider = $(`z-${model.order[0]}`);
  const before = picture("decoded");
  change(slider, "input", 2);
  await until("a slider", () => picture("decoded") !== before);
  told.valuetext = slider.getAttribute("aria-valuetext");
  await until("what is heard", () => heard().startsWith("p(x|z) at the sliders"));
  told.heard = [heard(), $("decoded").querySelector("canvas").ariaLabel];
  for (const id of ["zero", "back"]) {
    $(id).click();
    told.heard.push(status());
  }

  pointer($("map"), "pointerdown", toPixels(model.points[5]));
  pointer($("map"), "pointerup", toPixels(model.points[5]));
  await until("a click", () => place === nearest(toPixels(model.points[5])) && status().startsWith(`Example ${place},`));
  told.clicked = status();

  const [from, to] = [nearest(toPixels(model.points[5])), nearest(toPixels(model.points[7]))];
  pointer($("map"), "pointerdown", toPixels(model.points[from]));
  pointer($("map"), "pointermove", toPixels(model.points[to]));
  pointer($("map"), "pointerup", toPixels(model.points[to]));
  await until("a path", () => ends.to.some((value, at) => value !== 0) && Number($("from").value) === from);
  told.path = [from === Number($("from").value), to === Number($("to").value), $("path").querySelectorAll("canvas").length];
  await until("the codes of its ends", () => status() === `The path goes from example ${from} to ${to}.`);
  const now = z.join();
  change($("way"), "input", 0.5);
  told.way = z.join() !== now && z.every((value, at) => Math.abs(value - (ends.from[at] + ends.to[at]) / 2) < 1e-6);

  const start = place;
  press($("map"), "ArrowRight");
  press($("map"), "ArrowLeft");
  await until("an arrow", () => place !== start && status().startsWith(`Example ${place},`));

  pointer($("map"), "pointerdown", [2, 2]);
  pointer($("map"), "pointerup", [2, 2]);
  await until("a place", () => status().startsWith("The sliders stand at the place"));
  told.corner = toPixels(project(z)).map(Math.round);

  $("clear").click();
  await until("an empty drawing", () => status().startsWith("Your own x"));
  const drawing = $("x").querySelector("canvas");
  const empty = picture("reconstruction");
  const side = drawing.clientWidth;
  pointer(drawing, "pointerdown", [0.5 * side, 0.2 * side]);
  for (let step = 2; step <= 8; step++) pointer(drawing, "pointermove", [0.5 * side, 0.1 * step * side]);
  pointer(drawing, "pointerup", [0.5 * side, 0.8 * side]);
  await until("a drawing", () => picture("reconstruction") !== empty);
  const drawn = picture("x");
  press(drawing, "ArrowLeft");
  press(drawing, "ArrowLeft");
  press(drawing, " ");
  await until("a pixel by the keyboard", () => picture("x") !== drawn);
  told.drawn = status();

  $("sample").click();
  await until("a draw", () => status().includes("a draw from the prior"));
  $("next").click();
  await until("the next", () => status().startsWith("Example 0,"));
  change($("place"), "change", 1000);
  await until("the last", () => status().startsWith(`Example ${model.points.length - 1},`));
}

async function table() {
  const input = $("x").querySelector("input");
  input.focus();
  change(input, "input", 3);
  await until("a number", () => status().startsWith("Your own x"));
  told.drawn = status();
}

async function mixed() {
  told.curves = $("x").querySelector(".curve path")?.getAttribute("d").split("M").length - 1;
  told.tall = $("x").offsetHeight;
  const drawing = $("x").querySelector("canvas");
  $("colour").value = "#0000ff";
  press(drawing, "ArrowUp");
  press(drawing, "ArrowLeft");
  told.pixels = [status()];
  press(drawing, " ");
  press(drawing, "ArrowUp");
  press(drawing, "ArrowDown");
  told.pixels.push(status());
  await until("a pixel", () => status().startsWith("Your own x"));
  told.holes = [x[0].holes.length];
  const at = model.views.findIndex((view) => view.fields?.length === 2);
  const [age, visits] = $("x").querySelectorAll("input");
  told.visits = [visits.value, age.value.length <= 8];
  age.focus();
  change(age, "input", 0.5);
  await until("a number", () => x[at][0] === 0.5 && status().startsWith("Your own x"));
  told.holes.push(x[0].holes.length);
  told.visits.push(x[at][1]);
  told.drawn = status();
}

async function columns() {
  const rows = [...$("x").querySelectorAll("tr")];
  const input = (at) => rows[at].querySelector("input, select");
  const names = model.views[0].fields.map((field) => field.title);
  told.fields = rows.map((row) => [...row.querySelectorAll("label, small")].map((one) => one.textContent).join(": "));
  told.inputs = rows.map((_, at) => (input(at) ? input(at).type : "fixed"));
  const wanted = { job: "=pilot", born: "1991-02-03", smokes: "" };
  for (const [name, value] of Object.entries(wanted)) {
    const before = edits;
    const at = names.indexOf(name);
    input(at).focus();
    change(input(at), "input", value);
    await until(name, () => edits === before + 1 && status().startsWith("Your own x"));
  }
  await until("the answer", () => Object.keys(wanted).every((name) => x[0][names.indexOf(name)] === (wanted[name].replace("=", "") || null)));
  told.chosen = [Object.fromEntries(Object.keys(wanted).map((name) => [name, x[0][names.indexOf(name)]]))];
  for (let one = 0; one < model.points.length && x[0][names.indexOf("at")] !== null; one++) {
    change($("place"), "change", one);
    await until("an example", () => place === one && status().startsWith(`Example ${one}:`));
  }
  told.chosen.push(rows[names.indexOf("at")].querySelector(".none").textContent);
  told.path = [$("path").querySelector("tr").children.length, $("path").querySelectorAll("tbody tr").length];
  change(input(names.indexOf("age")), "input", "999");
  await until("an error", () => !$("error").hidden);
  told.error = $("error").textContent;
  const refused = () => [...document.querySelectorAll("[aria-invalid]")].map((field) => names[rows.findIndex((row) => row.contains(field))]);
  told.refused = refused();
  change(input(names.indexOf("age")), "input", "40");
  await until("a number", () => status().startsWith("Your own x") && x[0][0] === "40");
  await until("what is heard", () => heard().startsWith("Reconstruction: age "));
  told.refused.push(...refused());
  told.drawn = status();
}

async function texts() {
  const area = $("x").querySelector("textarea");
  area.focus();
  change(area, "input", "no dog");
  await until("a text", () => status().startsWith("Your own x"));
  told.drawn = status();
  await until("what is heard", () => heard() === `Reconstruction: ${$("reconstruction").textContent}`);
  change(area, "input", "no elk");
  await until("an error", () => !$("error").hidden);
  told.error = $("error").textContent;
}

addEventListener("load", async () => {
  await common();
  await { digits, table, texts, columns, mixed }[location.hash.slice(1)]();
  document.title = JSON.stringify(told);
});
