import { type MouseEvent, memo } from "react";
import type { Segment } from "../../api/sessions";
import { clock } from "../../words/time";
import type { Place } from "./place";
import { timeAt, wordSpans } from "./wordSpans";

/** How many segments are drawn, or left undrawn, together. */
export const BLOCK = 25;

interface Props {
  segments: readonly Segment[];
  from: number;
  count: number;
  /** What is heard, when it is in this block. */
  place: Place | null;
  /** Which segment the Tab key reaches; the others are a few arrows away. */
  tabbable: number;
  onSeek: ((timeS: number) => void) | null;
}

/** Some segments in a row. Text that stands does not change, so their number tells of news. */
export const SegmentBlock = memo(function SegmentBlock(props: Props) {
  const { segments, from, count, place, tabbable, onSeek } = props;
  return (
    <div className="segments">
      {segments.slice(from, from + count).map((segment, offset) => (
        <SegmentLine
          key={segment.idx}
          segment={segment}
          word={place?.segment === from + offset ? place.word : null}
          isTabbable={tabbable === from + offset}
          onSeek={onSeek}
        />
      ))}
    </div>
  );
}, isSameBlock);

function isSameBlock(before: Props, after: Props): boolean {
  return (
    before.count === after.count &&
    before.place === after.place &&
    before.tabbable === after.tabbable &&
    before.onSeek === after.onSeek &&
    before.segments[before.from] === after.segments[after.from] &&
    before.segments[before.from + before.count - 1] === after.segments[after.from + after.count - 1]
  );
}

interface LineProps {
  segment: Segment;
  /** The index of the word that is heard; null when another segment is. */
  word: number | null;
  isTabbable: boolean;
  onSeek: ((timeS: number) => void) | null;
}

function SegmentLine({ segment, word, isTabbable, onSeek }: LineProps) {
  const { start_s, text } = segment;
  const isCurrent = word !== null;
  return (
    <p className="segment" data-current={isCurrent || undefined}>
      {onSeek ? (
        <button
          type="button"
          className="time"
          tabIndex={isTabbable ? 0 : -1}
          aria-label={`Play from ${clock(start_s)}`}
          aria-current={isCurrent ? "time" : undefined}
          onClick={() => onSeek(start_s)}
        >
          {clock(start_s)}
        </button>
      ) : (
        <span className="time">{clock(start_s)}</span>
      )}
      {/* The keys have the button beside it. */}
      {/* biome-ignore lint/a11y/noStaticElementInteractions: see above */}
      {/* biome-ignore lint/a11y/useKeyWithClickEvents: see above */}
      <span className="words" dir="auto" onClick={(event) => seekByClick(event, segment, onSeek)}>
        {isCurrent ? <Words segment={segment} current={word} /> : text}
      </span>
    </p>
  );
}

/** The text, with the word that is heard marked in it. */
function Words({ segment, current }: { segment: Segment; current: number }) {
  const span = wordSpans(segment).find(({ word }) => word === current);
  const { text } = segment;
  if (!span) return text;
  return (
    <>
      {text.slice(0, span.start)}
      <mark>{text.slice(span.start, span.end)}</mark>
      {text.slice(span.end)}
    </>
  );
}

/** A click on a word plays from there; selecting text does not. */
function seekByClick(
  { clientX, clientY, currentTarget }: MouseEvent<HTMLElement>,
  segment: Segment,
  onSeek: LineProps["onSeek"],
): void {
  if (!onSeek || getSelection()?.isCollapsed === false) return;
  onSeek(timeAt(segment, offsetAt(clientX, clientY, currentTarget)));
}

/** How many letters of an element's text stand before a point; 0 where the browser cannot say. */
function offsetAt(x: number, y: number, element: HTMLElement): number {
  const caret = document.caretPositionFromPoint?.(x, y);
  if (!caret || !element.contains(caret.offsetNode)) return 0;
  const before = document.createRange();
  before.setStart(element, 0);
  before.setEnd(caret.offsetNode, caret.offset);
  return before.toString().length;
}
