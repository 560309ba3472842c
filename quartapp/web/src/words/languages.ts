/** Languages one is likely to upload; the server decides which it understands. */
const TAGS = [
  "ar",
  "de",
  "en",
  "es",
  "fr",
  "hi",
  "it",
  "ja",
  "ko",
  "nl",
  "pl",
  "pt",
  "ru",
  "sv",
  "tr",
  "uk",
  "zh",
];

export interface Language {
  readonly tag: string;
  /** In the reader's language. */
  readonly name: string;
}

/** The languages to choose from, by name. */
export function languages(): Language[] {
  return TAGS.map((tag) => ({ tag, name: languageName(tag) })).sort((one, other) =>
    one.name.localeCompare(other.name),
  );
}

/** `en` → `English`, in the reader's language. */
export function languageName(tag: string): string {
  try {
    return new Intl.DisplayNames(undefined, { type: "language" }).of(tag) ?? tag;
  } catch {
    return tag;
  }
}
