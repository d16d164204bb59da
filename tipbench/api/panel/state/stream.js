// A run as it changes: the server's stream, and questions every few seconds while that cannot be had. Draws nothing.

import { ApiError, api } from "../api.js";

const POLL_MS = 4000;

/**
 * Follow a run until it is over: onState(run) at once and after every change, onProblem(ApiError or null) when the line
 * is bad or good again. Uses the server's stream; while that cannot be had, it asks every few seconds.
 */
export function follow(id, { signal, onState, onProblem }) {
  let timer = null;
  let source = null;
  const stop = () => {
    source?.close();
    clearTimeout(timer);
  };
  signal.addEventListener("abort", stop);

  function stream() {
    source = new EventSource(api.events(id));
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
