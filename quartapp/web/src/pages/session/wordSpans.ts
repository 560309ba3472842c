import type { Segment } from "../../api/sessions";

/** A word as it stands in its segment's text: from `start` to before `end`. */
export interface WordSpan {
  readonly start: number;
  readonly end: number;
  /** Its index among the segment's words. */
  readonly word: number;
}

/**
 * Where the timed words stand in the text. Engines write the text with marks and capitals that
 * their words may lack; a word that is not found is left out. Pure.
 */
export function wordSpans({ text, words }: Pick<Segment, "text" | "words">): WordSpan[] {
  const lower = text.toLowerCase();
  const spans: WordSpan[] = [];
  let from = 0;
  for (const [word, { text: spelling }] of words.entries()) {
    const wanted = spelling.trim().toLowerCase();
    const start = wanted ? lower.indexOf(wanted, from) : -1;
    if (start < 0) continue;
    from = start + wanted.length;
    spans.push({ start, end: from, word });
  }
  return spans;
}

/** When the word at an offset in the text is spoken, in seconds; the segment's start before any. */
export function timeAt(segment: Segment, offset: number): number {
  const span = wordSpans(segment).findLast(({ start }) => start <= offset);
  return (span && segment.words[span.word]?.start_s) ?? segment.start_s;
}
