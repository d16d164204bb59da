// Signing in with an admin token. The token goes to the API once; afterwards a session cookie speaks.

import { ApiError, api } from "../api.js";
import { attribute, fill, h } from "../dom.js";
import { field, notice, words } from "../parts.js";

export async function loginPage({ query, signedIn }) {
  // `tipbench serve` prints a link with a token that works once: it is used and taken out of the address.
  const handed = query.get("token");
  if (handed) history.replaceState(null, "", "#/login");
  const token = h("input", {
    type: "password",
    id: "token",
    name: "token",
    autocomplete: "current-password",
    spellcheck: "false",
    required: true,
    "data-first": true,
  });
  const labelled = field(token, "Admin token");
  const problem = h("div", { "aria-live": "assertive" });
  const button = h("button", { class: "button primary", type: "submit" }, "Log in");

  async function submit(event) {
    event.preventDefault();
    fill(problem);
    labelled.say(token.value.trim() ? "" : "Enter the token.");
    if (!token.value.trim() || button.disabled) return token.focus();
    attribute(button, "disabled", true);
    try {
      await api.login(token.value.trim());
      signedIn(query.get("next"));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 401 || error.status === 403) {
        labelled.say("This token is not known here. Check that it was copied whole.");
        token.select();
      } else if (error.status === 429)
        fill(
          problem,
          notice("warn", `Too many attempts. Wait ${error.retryAfter ?? "a few"} seconds, then try again.`),
        );
      else fill(problem, notice("bad", h("strong", null, `${words(error)[0]}. `), words(error)[1]));
    } finally {
      attribute(button, "disabled", null);
    }
    return undefined;
  }

  if (handed) {
    try {
      await api.login(handed);
      signedIn("");
      return { title: "Log in", content: h("p", { class: "loading" }, "Logging in…") };
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      fill(
        problem,
        notice(
          "warn",
          error.status === 401
            ? "The link was used already, or is too old. Enter the token instead."
            : words(error).join(". "),
        ),
      );
    }
  }

  const content = h(
    "div",
    { class: "login" },
    h("span", { class: "brand" }, h("img", { src: "icon.svg", alt: "", width: 36, height: 36 }), "tipbench"),
    h(
      "section",
      { class: "card stack" },
      h("h1", null, "Log in"),
      query.get("next") && notice("info", "Log in to go on where you were."),
      h("form", { class: "stack", novalidate: true, on: { submit } }, labelled, problem, button),
      h(
        "details",
        { class: "small" },
        h("summary", null, "Where is the token?"),
        h(
          "div",
          { class: "stack tight" },
          h("p", { class: "soft" }, "On a cluster, in the Secret that the chart made:"),
          h(
            "pre",
            { tabindex: 0 },
            "kubectl -n tipbench get secret tipbench-admin \\\n  -o jsonpath='{.data.token}' | base64 -d",
          ),
          h(
            "p",
            { class: "soft" },
            "On a laptop, ",
            h("code", null, "tipbench serve"),
            " prints a link that logs you in when it starts.",
          ),
        ),
      ),
    ),
  );
  return { title: "Log in", content };
}
