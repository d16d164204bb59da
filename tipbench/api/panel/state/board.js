// Which board is looked at: its reference judges and versions, as the address has them, and what the API gives for them.

import { ApiError, api } from "../api.js";
import { words } from "../parts.js";

/** The reference judges and the versions that an address asks for. */
export function boardAsked(query) {
  return {
    reference: [...new Set(query.getAll("reference"))],
    versions: query.get("versions") === "all" ? "all" : "current",
  };
}

/** The part of an address that asks for such a board, for `boardAsked` to read; more may be set on it. */
export function boardQuery({ reference = [], versions = "current" }) {
  return new URLSearchParams([
    ...reference.map((name) => ["reference", name]),
    ...(versions === "all" ? [["versions", versions]] : []),
  ]);
}

/** The path of such a board's page. */
export function boardPath(experiment, asked = {}) {
  const query = boardQuery(asked);
  return `leaderboard/${encodeURIComponent(experiment)}${query.size ? `?${query}` : ""}`;
}

/** The board, and what it was refused for: by these references or, where the API refuses them, without any, and why in its words. */
export async function boardFor(experiment, { reference = [], versions = "current" }, signal) {
  const wanted = versions === "all" ? { versions } : {};
  try {
    return { board: await api.leaderboard(experiment, { ...wanted, reference }, signal), refused: "" };
  } catch (error) {
    if (!reference.length || !(error instanceof ApiError) || error.status !== 422) throw error;
    return { board: await api.leaderboard(experiment, wanted, signal), refused: words(error).join(". ") };
  }
}
