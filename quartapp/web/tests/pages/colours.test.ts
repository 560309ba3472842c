// @vitest-environment node
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

type Scheme = "light" | "dark";

const tokens = readFileSync("src/styles/tokens.css", "utf8");
const COLOURS = new Map(
  [...tokens.matchAll(/--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)/g)].map(
    ([, name, light, dark]) => [name, { light, dark }] as [string, Record<Scheme, string>],
  ),
);

/** Text on its ground: WCAG 2.2, 1.4.3. */
const TEXT = [
  ["ink", "ground"],
  ["ink", "card"],
  ["ink", "bar"],
  ["ink", "accent-soft"],
  ["ink", "heard"],
  ["soft", "ground"],
  ["soft", "card"],
  ["soft", "accent-soft"],
  ["accent", "ground"],
  ["accent", "card"],
  ["accent", "accent-soft"],
  ["accent-ink", "accent"],
  ["good", "ground"],
  ["good", "card"],
  ["good", "good-soft"],
  ["bad", "card"],
  ["bad", "bad-soft"],
  ["card", "bad"],
] as const;

/** What shows where a control is, and how far a bar has come: 1.4.11. */
const SHAPES = [
  ["field-line", "ground"],
  ["field-line", "card"],
  ["accent", "bar"],
  ["good", "bar"],
] as const;

for (const scheme of ["light", "dark"] as const) {
  test.each(TEXT)(`${scheme}: text in %s on %s is legible`, (text, ground) => {
    expect(contrast(text, ground, scheme)).toBeGreaterThanOrEqual(4.5);
  });
  test.each(SHAPES)(`${scheme}: %s stands out from %s`, (shape, ground) => {
    expect(contrast(shape, ground, scheme)).toBeGreaterThanOrEqual(3);
  });
}

function contrast(one: string, other: string, scheme: Scheme): number {
  const [light, dark] = [luminance(one, scheme), luminance(other, scheme)].sort((a, b) => b - a);
  return ((light as number) + 0.05) / ((dark as number) + 0.05);
}

/** Relative luminance, as WCAG 2.2 defines it. */
function luminance(name: string, scheme: Scheme): number {
  const colour = COLOURS.get(name)?.[scheme];
  if (!colour) throw new Error(`no colour ${name}`);
  const [r, g, b] = [1, 3, 5].map((at) => {
    const share = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
