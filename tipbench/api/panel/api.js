// The one module that knows the API: its paths, its headers, its errors, its live stream.

const POLL_MS = 4000;
const SAFE = new Set(["GET", "HEAD"]);
let csrf = null;

/** What the API (or the network) said no with. `status` is 0 when nothing answered; `errors` are [{field, message}]. */
export class ApiError extends Error {
  constructor({ status, title, detail = "", errors = [], retryAfter = null }) {
    super(title);
    Object.assign(this, { status, title, detail, errors, retryAfter });
  }

  /** May the same request work a little later? */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 502;
  }
}

export const api = {
  login: (token) => session("POST", { token }),
  session: () => session("GET"),
  async logout() {
    await request("DELETE", "session");
    csrf = null;
  },

  ready: (signal) =>
    fetch("readyz", { signal }).then(
      (answer) => answer.json(),
      () => null,
    ),
  experiments: async (signal) => (await get("bench/experiments", {}, signal)).experiments,
  form: (signal) => get("bench/config/schema", {}, signal),
  models: (query, signal) => get("bench/models", query, signal),
  estimate: (config, signal) => request("POST", "bench/estimate", { body: config, signal }),
  start: (config, key) => request("POST", "bench/run", { body: config, headers: { "Idempotency-Key": key } }),

  dagRuns: async (query, signal) => (await get("bench/dag-runs", query, signal)).dag_runs,
  dagRun: (id, signal) => get(`bench/dag-runs/${part(id)}`, {}, signal),
  cancel: (id) => request("POST", `bench/dag-runs/${part(id)}/cancel`),
  follow,

  leaderboard: (experiment, signal) => get(`bench/leaderboard/${part(experiment)}`, {}, signal),
  download: (experiment, format) => `api/bench/leaderboard/${part(experiment)}?format=${format}&download=true`,
  plot: (experiment, name, signal) =>
    request("GET", `bench/leaderboard/${part(experiment)}/${name}.svg`, { signal, as: "text" }),
  agreement: (experiment, signal) => get(`bench/agreement/${part(experiment)}`, {}, signal),
  tips: (experiment, query, signal) => get(`bench/tips/${part(experiment)}`, query, signal),
  compare: (query, signal) => get("bench/compare", query, signal),

  judging: (experiment, query, signal) => get(`bench/judging/${part(experiment)}/next`, query, signal),
  exchangeFile: (experiment, judge) =>
    `api/bench/judging/${part(experiment)}/export${judge ? `?judge=${part(judge)}` : ""}`,
  apply: (experiment, text) => request("POST", `bench/judging/${part(experiment)}/apply`, { text }),
  score: (experiment, id, body) => request("PUT", `bench/judging/${part(experiment)}/items/${part(id)}`, { body }),
};

function part(text) {
  return encodeURIComponent(text);
}

function get(path, query, signal) {
  const known = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = new URLSearchParams(known);
  return request("GET", search.size ? `${path}?${search}` : path, { signal });
}

async function session(method, body) {
  const me = await request(method, "session", { body, quiet: true });
  csrf = me.csrf_token;
  return me;
}

async function request(method, path, options = {}) {
  const answer = await send(method, path, options);
  // Another tab may have logged in anew: its session has another token, which is fetched once.
  const stale = answer.status === 403 && csrf !== null && !SAFE.has(method);
  if (stale) await session("GET");
  return read(stale ? await send(method, path, options) : answer, options);
}

async function send(method, path, { body, text, headers, signal, as = "json" }) {
  const content = text ?? (body === undefined ? undefined : JSON.stringify(body));
  const all = { Accept: as === "text" ? "image/svg+xml" : "application/json", ...headers };
  if (content !== undefined) all["Content-Type"] = "application/json";
  if (!SAFE.has(method) && csrf) all["X-CSRF-Token"] = csrf;
  try {
    return await fetch(`api/${path}`, { method, headers: all, body: content, signal, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError({ status: 0, title: "tipbench cannot be reached" });
  }
}

async function read(answer, { as = "json", quiet = false }) {
  if (answer.status === 204) return null;
  if (answer.ok) return as === "text" ? answer.text() : answer.json();
  if (answer.status === 401 && !quiet) document.dispatchEvent(new CustomEvent("tipbench:signed-out"));
  throw await problem(answer);
}

async function problem(answer) {
  const retry = Number(answer.headers.get("Retry-After"));
  const body = await answer.json().catch(() => ({}));
  return new ApiError({
    status: answer.status,
    title: body.title ?? `The API answered ${answer.status}`,
    detail: body.detail,
    errors: (body.errors ?? []).map((one) => ({ field: one.pointer.replace(/^\//, ""), message: one.detail })),
    retryAfter: retry || null,
  });
}

/**
 * Follow a run until it is over: onState(run) at once and after every change, onProblem(ApiError or null) when the line
 * is bad or good again. Uses the server's stream; while that cannot be had, it asks every few seconds.
 */
function follow(id, { signal, onState, onProblem }) {
  let timer = null;
  let source = null;
  const stop = () => {
    source?.close();
    clearTimeout(timer);
  };
  signal.addEventListener("abort", stop);

  function stream() {
    source = new EventSource(`api/bench/dag-runs/${part(id)}/events`);
    source.addEventListener("state", (event) => {
      onProblem(null);
      onState(JSON.parse(event.data));
    });
    source.addEventListener("problem", (event) => {
      const body = JSON.parse(event.data);
      onProblem(new ApiError({ status: body.status, title: body.title, detail: body.detail }));
    });
    source.addEventListener("end", stop);
    source.addEventListener("error", () => {
      source.close();
      poll();
    });
  }

  async function poll() {
    if (signal.aborted) return;
    try {
      const run = await api.dagRun(id, signal);
      onProblem(null);
      onState(run);
      if (run.ended_at) return;
      timer = setTimeout(stream, POLL_MS);
    } catch (error) {
      if (signal.aborted) return;
      onProblem(error);
      if (error.status !== 404) timer = setTimeout(poll, POLL_MS);
    }
  }

  stream();
}
