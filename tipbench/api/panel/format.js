// Figures in words, as the reports write them. What is not known is a dash, never a zero.

export const UNKNOWN = "–";

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

export function number(value, digits = 2) {
  return known(value) ? value.toFixed(digits) : UNKNOWN;
}

export function signed(value, digits = 2) {
  if (!known(value)) return UNKNOWN;
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}

export function percent(value) {
  if (!known(value)) return UNKNOWN;
  if (value > 0.99 && value < 1) return ">99%";
  return value > 0 && value < 0.01 ? "<1%" : `${Math.round(value * 100)}%`;
}

/** A probability estimated from draws is never certain. */
export function chance(value) {
  if (!known(value)) return UNKNOWN;
  return value > 0.99 ? ">99%" : value < 0.01 ? "<1%" : `${Math.round(value * 100)}%`;
}

export function interval(low, high, digits = 2) {
  return known(low) && known(high) ? `${low.toFixed(digits)} to ${high.toFixed(digits)}` : UNKNOWN;
}

export function bytes(value) {
  if (!known(value)) return UNKNOWN;
  if (value >= 2 ** 30) return `${(value / 2 ** 30).toFixed(1)} GiB`;
  return `${Math.round(value / 2 ** 20)} MiB`;
}

export function parameters(value) {
  if (!known(value)) return UNKNOWN;
  return value >= 0.9995e9 ? `${(value / 1e9).toFixed(2)} B` : `${Math.round(value / 1e6)} M`;
}

export function pValue(value) {
  if (!known(value)) return "";
  if (value < 0.001) return "p < 0.001";
  return `p = ${value.toFixed(value < 0.1 ? 3 : 2)}`;
}

/** A short time: "85 ms", "1.3 s". */
export function seconds(value) {
  if (!known(value)) return UNKNOWN;
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;
}

/** Seconds as a person says them: "40 s", "3 min", "1 h 20 min". */
export function duration(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.round(hours / 24)} days`;
}

/** "2 hours ago", in the page's language. */
export function ago(iso, now = Date.now()) {
  if (!iso) return UNKNOWN;
  const seconds = (new Date(iso).getTime() - now) / 1000;
  if (Math.abs(seconds) < 45) return "just now";
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  for (const [unit, size] of [
    ["day", 86400],
    ["hour", 3600],
    ["minute", 60],
  ]) {
    if (Math.abs(seconds) >= size || unit === "minute") return relative.format(Math.round(seconds / size), unit);
  }
  return UNKNOWN;
}

export function dateTime(iso) {
  if (!iso) return UNKNOWN;
  return new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

export function count(value, one, many = `${one}s`) {
  return `${value.toLocaleString("en")} ${value === 1 ? one : many}`;
}

/** Marks of a rubric's scale, evenly spaced, its ends among them: every score where there are few, else every 2nd, 5th, 10th … */
export function steps({ scale_min: low, scale_max: high }, most = 6) {
  const range = high - low;
  const step = [1, 2, 5, 10, 20, 25, 50, 100].find((one) => range % one === 0 && range / one <= most) ?? range;
  return Array.from({ length: range / step + 1 }, (_, i) => low + i * step);
}
