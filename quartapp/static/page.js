// The few things every view does with the page. Data reaches it as text only, never as HTML.

// Shows a copy of the template in place of what was there; returns its parts by name.
export function show(templateId) {
  const { fragment, parts } = copy(templateId);
  document.getElementById("main").replaceChildren(fragment);
  return parts;
}

// A copy of a template, and its elements with a data-part by that name.
export function copy(templateId) {
  const fragment = document.getElementById(templateId).content.cloneNode(true);
  const parts = {};
  for (const element of fragment.querySelectorAll("[data-part]")) {
    parts[element.dataset.part] = element;
  }
  return { fragment, parts };
}

// Sets a text and hides the element while there is none. Untouched when nothing changed.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}

// Sets a bar to a percentage; null is work of unknown length.
export function setBar(bar, percent) {
  bar.classList.toggle("unknown", percent === null);
  bar.firstElementChild.style.width = percent === null ? "" : `${percent}%`;
  if (percent === null) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", String(percent));
}

export function setBadge(badge, status, word) {
  badge.dataset.status = status;
  say(badge, word);
}

// Says something to those who listen to the page; for few and important things.
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

export function setTitle(text) {
  document.title = text ? `${text} · quartapp` : "quartapp";
}

// A page that holds nothing but a sentence. `again` is called by its button, when given.
export function showNotice(heading, text, again) {
  const parts = show("notice-view");
  say(parts.heading, heading);
  say(parts.text, text);
  setTitle(heading);
  if (again) {
    parts.again.hidden = false;
    parts.again.addEventListener("click", again);
  }
  document.getElementById("main").focus();
}
