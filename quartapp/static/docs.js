// The OpenAPI document, readable: what there is to call, with what, and what comes back.

const METHODS = ["get", "post", "put", "patch", "delete"];

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Text in which `code` is marked by backticks.
function prose(text) {
  const pieces = text.split("`");
  return element(
    "p",
    {},
    ...pieces.map((piece, at) => (at % 2 ? element("code", {}, piece) : piece)),
  );
}

function reader(components) {
  function resolve(schema) {
    const name = schema?.$ref?.split("/").at(-1);
    return (name && components[name]) || schema || {};
  }

  // `string`, `one of a, b`, `list of Segment`, `integer or null`.
  function kind(schema) {
    const known = resolve(schema);
    if (known.enum) return `one of ${known.enum.join(", ")}`;
    if (known.anyOf) return known.anyOf.map(kind).join(" or ");
    if (known.type === "array") return `list of ${kind(known.items)}`;
    if (known.type === "object" && known.title) return known.title;
    return [known.type ?? "anything", known.format && `(${known.format})`]
      .filter(Boolean)
      .join(" ");
  }

  function limits(schema) {
    const known = resolve(schema);
    return [
      known.minimum !== undefined && `at least ${known.minimum}`,
      known.maximum !== undefined && `at most ${known.maximum}`,
      known.minLength !== undefined && `at least ${known.minLength} characters`,
      known.maxLength !== undefined && `at most ${known.maxLength} characters`,
      known.default !== undefined && known.default !== null && `default ${known.default}`,
    ].filter(Boolean);
  }

  function fieldsOf(schema) {
    const { properties = {}, required = [] } = resolve(schema);
    return Object.entries(properties).flatMap(([name, field]) => [
      { name, text: [kind(field), ...limits(field), !required.includes(name) && "optional"] },
      ...fieldsOf(resolve(field).items ?? {}).map((inner) => ({
        ...inner,
        name: `${name}[].${inner.name}`,
      })),
    ]);
  }

  return { resolve, kind, limits, fieldsOf };
}

function fieldList(fields) {
  const list = element("dl", { class: "fields" });
  for (const { name, text } of fields) {
    list.append(
      element("dt", {}, element("code", {}, name)),
      element("dd", {}, text.filter(Boolean).join(", ")),
    );
  }
  return list;
}

function bodies(content = {}) {
  return Object.entries(content).map(([type, { schema, "x-events": events }]) => ({
    type,
    schema,
    events,
  }));
}

// What the data of an event holds: `StatusBody: session_id, id, …`.
function eventOf(body, read) {
  const fields = read.fieldsOf(body).filter(({ name }) => !name.includes("["));
  return `${read.resolve(body).title}: ${fields.map(({ name }) => name).join(", ")}`;
}

function operation(method, path, described, read) {
  const summary = element(
    "summary",
    {},
    element("span", { class: "method" }, method.toUpperCase()),
    element("code", {}, path),
  );
  const [first, rest] = sentences(described);
  if (first) summary.append(element("span", { class: "soft" }, plain(first)));
  const details = element("details", { class: "card operation" }, summary);
  if (rest) details.append(prose(rest));
  const parameters = described.parameters ?? [];
  if (parameters.length) {
    details.append(
      element("h3", {}, "Parameters"),
      fieldList(
        parameters.map((parameter) => ({
          name: parameter.name,
          text: [
            `in the ${parameter.in}`,
            read.kind(parameter.schema),
            ...read.limits(parameter.schema),
            !parameter.required && "optional",
          ],
        })),
      ),
    );
  }
  for (const { type, schema } of bodies(described.requestBody?.content)) {
    details.append(
      element("h3", {}, "Request ", element("code", {}, type)),
      fieldList(read.fieldsOf(schema)),
    );
  }
  for (const [status, answer] of Object.entries(described.responses ?? {})) {
    const content = bodies(answer.content);
    const named = content
      .map(({ schema }) => read.resolve(schema).title)
      .filter(Boolean)
      .join(", ");
    const heading = element("h3", {}, status, named ? ` ${named}` : "");
    details.append(heading);
    for (const { schema, events = {} } of content) {
      if (Number(status) < 400) details.append(fieldList(read.fieldsOf(schema)));
      const named = Object.entries(events).map(([name, body]) => ({
        name,
        text: [eventOf(body, read)],
      }));
      if (named.length) details.append(fieldList(named));
    }
  }
  return details;
}

// The first sentence and the rest. The document cuts its texts at the end of the first line.
function sentences({ summary = "", description = "" }) {
  const text = `${summary} ${description}`.replace(/\s+/g, " ").trim();
  const end = text.search(/\. /) + 1;
  return end ? [text.slice(0, end), text.slice(end).trim()] : [text, ""];
}

const plain = (text) => text.replaceAll("`", "");

async function render() {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error(`The document is not available (${response.status}).`);
  const { paths, components, tags = [] } = await response.json();
  const read = reader(components?.schemas ?? {});
  const groups = new Map(tags.map(({ name }) => [name, []]));
  for (const [path, item] of Object.entries(paths)) {
    for (const method of METHODS.filter((name) => item[name])) {
      const group = item[method].tags?.[0] ?? "other";
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(operation(method, path, item[method], read));
    }
  }
  const shown = document.getElementById("operations");
  for (const [name, operations] of groups) {
    if (!operations.length) continue;
    const heading = name[0].toUpperCase() + name.slice(1);
    shown.append(element("section", {}, element("h2", {}, heading), ...operations));
  }
}

render().catch((error) => {
  const shown = document.getElementById("error");
  shown.textContent = `The description could not be loaded: ${error.message}`;
  shown.hidden = false;
});
