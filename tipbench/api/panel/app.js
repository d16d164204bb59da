// The frame: who is logged in, which page is shown, and what to do when a page cannot be.

import { ApiError, api } from "./api.js";
import { announce, attribute, fill, h } from "./dom.js";
import { failure, icon, loading } from "./parts.js";
import { cellPage } from "./pages/cell.js";
import { collectPage } from "./pages/collect.js";
import { comparePage } from "./pages/compare.js";
import { experimentsPage } from "./pages/experiments.js";
import { importPage } from "./pages/import.js";
import { judgePage } from "./pages/judge.js";
import { leaderboardPage } from "./pages/leaderboard.js";
import { loginPage } from "./pages/login.js";
import { runPage } from "./pages/run.js";
import { statusPage } from "./pages/status.js";

// A page gets { parts, query, signal, session, go } and returns { title, content }, where content is an element.
// `signal` ends with the page: every timer, stream and request of the page listens to it.
const PAGES = {
  "": experimentsPage,
  collect: collectPage,
  run: runPage,
  judge: judgePage,
  leaderboard: leaderboardPage,
  cell: cellPage,
  compare: comparePage,
  import: importPage,
  status: statusPage,
  login: loginPage,
};
const NAVIGATION = [
  ["", "Experiments"],
  ["collect", "Run collection"],
  ["compare", "Compare"],
];

const RETRY_MS = 6000;

const main = document.getElementById("main");
const bar = document.getElementById("bar");
const foot = document.getElementById("foot");
let session = null;
let current = new AbortController();

export function go(path, { replace = false } = {}) {
  const hash = `#/${path}`;
  if (location.hash === hash) return show();
  if (replace) {
    history.replaceState(null, "", hash);
    return show();
  }
  location.hash = hash;
  return undefined;
}

function route() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...parts] = path.split("/").map(decoded);
  return { name, parts, path, query: new URLSearchParams(search) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function show() {
  current.abort();
  const visit = (current = new AbortController());
  const { name, parts, path, query } = route();
  const page = PAGES[name];
  fill(main, loading());
  window.scrollTo(0, 0);
  try {
    if (name !== "login" && !session) session = await api.session();
    drawBar(name);
    if (!page)
      throw new ApiError({
        status: 404,
        title: "There is no such page",
        detail: "Go to Experiments and start from there.",
      });
    const { title, content } = await page({ parts, query, signal: visit.signal, session, go, signedIn });
    if (visit.signal.aborted) return;
    document.title = title === "tipbench" ? title : `${title} – tipbench`;
    fill(main, content);
    announce(title);
    const first = main.querySelector("[data-first]") ?? main;
    if (!main.contains(document.activeElement) || first !== main) first.focus({ preventScroll: true });
  } catch (error) {
    if (visit.signal.aborted) return;
    if (error instanceof ApiError && error.status === 401) return toLogin(path, query);
    drawBar(name);
    document.title = "Something is in the way – tipbench";
    fill(main, failure(error, show));
    if (error instanceof ApiError && error.passing) {
      const again = setTimeout(show, RETRY_MS);
      visit.signal.addEventListener("abort", () => clearTimeout(again));
    }
  }
}

function toLogin(path, query) {
  session = null;
  const search = query.size ? `?${query}` : "";
  const next = path ? `?next=${encodeURIComponent(path + search)}` : "";
  go(`login${next}`, { replace: true });
}

function signedIn(next) {
  session = null;
  go(next ?? "", { replace: true });
}

// A request of an open page was answered 401: the session has expired.
document.addEventListener("tipbench:signed-out", () => {
  const { name, path, query } = route();
  if (name !== "login") toLogin(path, query);
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener("hashchange", show);

function drawBar(name) {
  if (!session || name === "login") return void [fill(bar), fill(foot)];
  const links = NAVIGATION.map(([path, label]) =>
    h("a", { href: `#/${path}`, "aria-current": path === name && "page" }, label),
  );
  fill(
    bar,
    h(
      "div",
      null,
      h("a", { class: "brand", href: "#/" }, h("img", { src: "icon.svg", alt: "", width: 26, height: 26 }), "tipbench"),
      h("nav", { "aria-label": "Main" }, links),
      h(
        "div",
        { class: "who" },
        h("span", { class: "soft small", title: `Signed in with the token “${session.name}”` }, session.name),
        themeButton(),
        h("button", { class: "button quiet compact", type: "button", on: { click: logout } }, "Log out"),
      ),
    ),
  );
  drawFoot();
}

function drawFoot() {
  const engine = session.back_end === "airflow" ? "collections run in Airflow" : "collections run on this machine";
  fill(foot, h("p", null, `tipbench ${session.version} · ${engine} · `, h("a", { href: "docs" }, "API")));
}

async function logout() {
  try {
    await api.logout();
  } catch (error) {
    // Still logged in: to show the login page would be a lie.
    if (error.status !== 401) return void fill(main, failure(error, logout));
  }
  session = null;
  return go("login");
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function themeButton() {
  const button = h("button", { class: "button quiet compact", type: "button", on: { click: toggle } });
  function draw() {
    const other = isDark() ? "light" : "dark";
    attribute(button, "aria-label", `Use the ${other} theme`);
    attribute(button, "title", `Use the ${other} theme`);
    fill(button, icon(isDark() ? "sun" : "moon"));
  }
  function toggle() {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("tipbench.theme", theme);
    } catch {
      // Storage is blocked: the choice holds until the page is left.
    }
    draw();
  }
  draw();
  return button;
}

show();
