// The one module that knows the API: its paths, its headers, its errors.

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
  rubric: (signal) => get("bench/rubric", {}, signal),
  models: (query, signal) => get("bench/models", query, signal),
  estimate: (config, signal) => request("POST", "bench/estimate", { body: config, signal }),
  start: (config, key) => request("POST", "bench/run", { body: config, headers: { "Idempotency-Key": key } }),

  dagRuns: async (query, signal) => (await get("bench/dag-runs", query, signal)).dag_runs,
  dagRun: (id, signal) => get(`bench/dag-runs/${part(id)}`, {}, signal),
  cancel: (id) => request("POST", `bench/dag-runs/${part(id)}/cancel`),
  events: (id) => `api/bench/dag-runs/${part(id)}/events`,

  status: (experiment, asked, signal) => get(`bench/status/${part(experiment)}`, { for: asked }, signal),
  leaderboard: (experiment, query, signal) => get(`bench/leaderboard/${part(experiment)}`, query, signal),
  download: (experiment, format, reference = []) =>
    `api/bench/leaderboard/${part(experiment)}?${search({ format, download: true, reference })}`,
  plot: (experiment, name, { narrow = null, reference = [], signal }) =>
    request("GET", `bench/leaderboard/${part(experiment)}/${name}.svg?${search({ narrow, reference })}`, {
      signal,
      as: "text",
    }),
  agreement: (experiment, signal) => get(`bench/agreement/${part(experiment)}`, {}, signal),
  tips: (experiment, query, signal) => get(`bench/tips/${part(experiment)}`, query, signal),
  compare: (query, signal) => get("bench/compare", query, signal),
  importTable: (experiment, file, media, dryRun) =>
    request("POST", `bench/tables/${part(experiment)}/import?dry_run=${dryRun}`, {
      text: file,
      headers: { "Content-Type": media },
    }),
  table: (experiment) => `api/bench/tables/${part(experiment)}/scores?format=csv`,

  judging: (experiment, query, signal) => get(`bench/judging/${part(experiment)}/next`, query, signal),
  sample: (experiment, signal) => get(`bench/judging/${part(experiment)}/sample`, {}, signal),
  planSample: (experiment, query, signal) => get(`bench/judging/${part(experiment)}/sample/plan`, query, signal),
  drawSample: (experiment, body) => request("POST", `bench/judging/${part(experiment)}/sample`, { body }),
  exchangeFile: (experiment, judge) =>
    `api/bench/judging/${part(experiment)}/export${judge ? `?judge=${part(judge)}` : ""}`,
  apply: (experiment, text) => request("POST", `bench/judging/${part(experiment)}/apply`, { text }),
  score: (experiment, id, body) => request("PUT", `bench/judging/${part(experiment)}/items/${part(id)}`, { body }),
};

function part(text) {
  return encodeURIComponent(text);
}

/** What is known of a query; a list stands there once for each of its values. */
function search(query) {
  const known = Object.entries(query).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  return new URLSearchParams(known.filter(([, value]) => value !== null && value !== undefined && value !== ""));
}

function get(path, query, signal) {
  const asked = search(query);
  return request("GET", asked.size ? `${path}?${asked}` : path, { signal });
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
  if (content !== undefined) all["Content-Type"] ??= "application/json";
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
