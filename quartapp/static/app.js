// Decides which view is shown: by the address, and by whether somebody is signed in.

import { showSignIn } from "./account_view.js";
import { getMe, signOut, whenSignedOut } from "./api.js";
import { showHome } from "./home_view.js";
import { showNotice } from "./page.js";
import { showSession } from "./session_view.js";

let view = new AbortController(); // of what is shown now

const SESSION = /^\/sessions\/([0-9a-f-]{36})\/?$/i;

// The cookie cannot be read here. This only spares the first visit a question whose answer is
// known to be no; the server decides.
const signedInBefore = {
  get: () => tolerant(() => localStorage.getItem("signed-in")) === "yes",
  set: (yes) => tolerant(() => (yes ? localStorage.setItem("signed-in", "yes")
    : localStorage.removeItem("signed-in"))),
};

function tolerant(use) {
  try {
    return use();
  } catch {
    return null; // storage is switched off
  }
}

async function start() {
  if (!signedInBefore.get()) {
    askToSignIn();
    return;
  }
  try {
    enter(await getMe());
  } catch (problem) {
    if (problem.status !== 401) showNotice("That did not work", problem.message, start);
  }
}

function enter(user) {
  signedInBefore.set(true);
  document.getElementById("who").textContent = user.email;
  document.getElementById("account").hidden = false;
  const { signal } = nextView();
  const session = SESSION.exec(location.pathname);
  if (session) showSession(session[1].toLowerCase(), signal, signedOutMeanwhile);
  else showHome(signal);
}

function nextView() {
  view.abort();
  view = new AbortController();
  return view;
}

function askToSignIn(why) {
  nextView();
  document.getElementById("account").hidden = true;
  showSignIn(enter, why);
}

function signedOutMeanwhile() {
  signedInBefore.set(false);
  askToSignIn("You have been signed out. Sign in to go on.");
}

async function leave() {
  try {
    await signOut();
  } catch (problem) {
    if (problem.status !== 401) {
      showNotice("You are still signed in", problem.message, leave);
      return;
    }
  }
  signedInBefore.set(false);
  location.assign("/");
}

whenSignedOut(signedOutMeanwhile);
// A page taken out of the browser's memory shows what was, and its streams are dead.
addEventListener("pageshow", (event) => event.persisted && location.reload());
document.getElementById("sign-out").addEventListener("click", leave);
start();
