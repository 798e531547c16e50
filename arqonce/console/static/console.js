// Renews marked regions of a page when the servers say something else, shows times in the viewer's zone, copies ids.
// The page works without it. It makes no markup of its own, and asks nobody but the console.
"use strict";

const hours = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clocks = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const banner = document.getElementById("connection");
let etag = null, version = document.body.dataset.version || null, source = null, timer = null, isAsking = false, mustAskAgain = false;

function showTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.dataset.local = "";
    time.textContent = ("clock" in time.dataset ? clocks : hours).format(at);
  }
}

function offerCopies(root) {
  if (!navigator.clipboard) return;
  for (const button of root.querySelectorAll("button.copy[hidden]")) button.hidden = false;
}

// Lets a narrow screen show each row as a list. The roles stay, which browsers else forget with the form of a table.
function labelCells(root) {
  for (const table of root.querySelectorAll("main .scroll > table")) {
    if (table.closest(".chart")) continue;
    const titles = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    table.classList.add("labelled");
    table.setAttribute("role", "table");
    for (const part of [table.tHead, ...table.tBodies]) part.setAttribute("role", "rowgroup");
    for (const row of table.rows) {
      row.setAttribute("role", "row");
      [...row.cells].forEach((cell, at) => {
        cell.dataset.label = titles[at];
        cell.setAttribute("role", cell.tagName === "TD" ? "cell" : row.parentElement === table.tHead ? "columnheader" : "rowheader");
      });
    }
  }
}

// A field for times has no zone. Here it is in the viewer's, as all times of the page are; its form sends UTC.
function useZone(field) {
  const label = field.labels[0];
  label.textContent = label.dataset.local;
  if (field.value) {
    const at = new Date(field.value + "Z");
    field.value = new Date(at - 60000 * at.getTimezoneOffset()).toISOString().slice(0, field.value.length);
  }
  field.form.addEventListener("formdata", ({ formData }) => {
    const at = new Date(field.value);
    if (field.value) formData.set(field.name, at.toISOString().slice(0, at.getSeconds() ? 19 : 16));
  });
}

function prepare(root) {
  labelCells(root);
  showTimes(root);
  offerCopies(root);
}

function say(text) {
  if (banner.textContent !== text) banner.textContent = text;
  banner.hidden = text === "";
}

function isInUse(region) {
  const active = document.activeElement;
  const isTyping = active && region.contains(active) && active.matches("input, select, textarea");
  const selection = document.getSelection();
  return isTyping || (selection && !selection.isCollapsed && region.contains(selection.anchorNode));
}

function replace(region, fresh) {
  const active = document.activeElement;
  const focused = active && region.contains(active) ? pathOf(active, region) : null;
  for (const details of region.querySelectorAll("details[id][open]")) {
    const other = fresh.querySelector("#" + CSS.escape(details.id));
    if (other) other.open = true;
  }
  const scrolled = [...region.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  region.replaceWith(fresh);
  fresh.querySelectorAll(".scroll").forEach((one, at) => { one.scrollLeft = scrolled[at] || 0; });
  if (focused) follow(focused, fresh)?.focus({ preventScroll: true });
}

function pathOf(element, root) {
  const path = [];
  for (; element !== root; element = element.parentElement) path.unshift([...element.parentElement.children].indexOf(element));
  return path;
}

function follow(path, root) {
  return path.reduce((element, at) => element && element.children[at], root);
}

async function renew() {
  if (isAsking) { mustAskAgain = true; return; }
  isAsking = true;
  try {
    const headers = etag ? { "If-None-Match": etag } : {};
    const response = await fetch(location.href, { headers, cache: "no-store", credentials: "same-origin" });
    if (response.status === 401) { location.reload(); return; }
    if (response.status === 304) { say(""); return; }
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    if (!response.ok) { say(fresh.querySelector("h1")?.textContent + ". What you see is older. This page tries again."); return; }
    say("");
    if (document.getElementById("error")) { location.reload(); return; }
    etag = response.headers.get("ETag");
    for (const region of document.querySelectorAll("[data-live][id]")) {
      const other = fresh.getElementById(region.id);
      if (!other || isInUse(region)) { if (other) etag = null; continue; }
      prepare(other);
      if (!other.isEqualNode(region)) replace(region, document.adoptNode(other));
    }
    document.title = fresh.title;
  } catch {
    say("The console does not answer. What you see is older. This page tries again.");
  } finally {
    isAsking = false;
    if (mustAskAgain) { mustAskAgain = false; soon(); }
  }
}

function soon(after = 200) {
  clearTimeout(timer);
  timer = setTimeout(renew, after);
}

function watch() {
  const isLive = document.querySelector("[data-live]") !== null;
  if (document.hidden || source || !isLive) return;
  source = new EventSource("/live");
  source.addEventListener("changed", (event) => {
    if (version !== null && version !== event.data) soon();
    version = event.data;
  });
  source.addEventListener("open", () => say(""));
  source.addEventListener("error", () => {
    say("The console does not answer. What you see is older. This page tries again.");
    if (source && source.readyState === EventSource.CLOSED) { leave(); setTimeout(() => { renew(); watch(); }, 5000); }
  });
}

function leave() {
  source?.close();
  source = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? leave() : watch()));

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  const before = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = before; }, 1500);
});

// The address that "dev" prints has a token behind the number sign, which browsers send to nobody.
const form = document.getElementById("log-in");
if (form && location.hash.length > 20) {
  form.elements.token.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname + location.search);
  if ("takesToken" in form.dataset) form.requestSubmit();
}

prepare(document);
document.querySelectorAll("input[type=datetime-local]").forEach(useZone);
watch();
document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
for (const region of document.querySelectorAll("[data-every]")) setInterval(() => { if (!document.hidden) renew(); }, 1000 * Math.max(2, Number(region.dataset.every)));
if (document.querySelector("[data-retry]")) setInterval(() => { if (!document.hidden) renew(); }, 5000);
