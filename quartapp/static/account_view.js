// Signing in, and making an account.

import { register, signIn } from "./api.js";
import { say, setTitle, show } from "./page.js";

const MODES = {
  signIn: {
    heading: "Sign in",
    submit: "Sign in",
    question: "New here?",
    other: "Make an account",
    autocomplete: "current-password",
    enter: signIn,
  },
  register: {
    heading: "Make an account",
    submit: "Make account",
    question: "Have an account?",
    other: "Sign in",
    autocomplete: "new-password",
    enter: register,
  },
};

const MIN_PASSWORD = 8;

// Shows the form; `onUser(user)` once somebody is in. `why` is said above it, when given.
export function showSignIn(onUser, why) {
  const parts = show("sign-in-view");
  const { email, password } = parts.form.elements;
  const heading = parts.form.parentElement.querySelector("h1");
  let mode = MODES.signIn;

  function apply() {
    say(heading, mode.heading);
    say(parts.submit, mode.submit);
    say(parts.question, mode.question);
    say(parts.switch, mode.other);
    say(parts.error, "");
    setTitle(mode.heading);
    password.autocomplete = mode.autocomplete;
    parts.rule.hidden = mode !== MODES.register;
    if (mode === MODES.register) password.minLength = MIN_PASSWORD;
    else password.removeAttribute("minlength");
  }

  parts.switch.addEventListener("click", () => {
    mode = mode === MODES.signIn ? MODES.register : MODES.signIn;
    apply();
    email.focus();
  });

  parts.form.addEventListener("submit", async (event) => {
    event.preventDefault();
    say(parts.error, "");
    parts.submit.disabled = true;
    try {
      const { user } = await mode.enter(email.value.trim(), password.value);
      onUser(user);
    } catch (problem) {
      say(parts.error, problem.message);
      parts.submit.disabled = false;
      if (problem.status === 401) password.select();
    }
  });

  if (why) say(parts.why, why);
  apply();
  email.focus();
}
