import { watchSession } from "../dist/index.js";

const find = (selector) => document.querySelector(selector);
let stop = () => {};

find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const { server, token, session } = Object.fromEntries(new FormData(event.target));
  stop();
  stop = watchSession(session.trim(), show, {
    segments: true,
    ...(server && { baseUrl: new URL(server).origin }),
    ...(token && { headers: { Authorization: `Bearer ${token}` } }),
  });
});

function show({ status, segments, connection, error }) {
  const progress = status?.progress ?? 0;
  find("progress").value = progress;
  find("output[name=progress]").value = `${progress} %`;
  find("output[name=connection]").value = connection;
  find("[role=status]").textContent = error?.message ?? status?.message ?? "";
  find("ol").replaceChildren(...segments.map(item));
}

function item({ text }) {
  const element = document.createElement("li");
  element.textContent = text;
  return element;
}
