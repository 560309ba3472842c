import { useRef } from "react";
import type { Segment } from "../../api/sessions";
import { Button } from "../../components/Button";
import { Down } from "../../components/icons";
import type { Place } from "./place";
import { BLOCK, SegmentBlock } from "./SegmentBlock";
import { useArrowKeys } from "./useArrowKeys";
import { useFollowSound } from "./useFollowSound";
import { useStayAtEnd } from "./useStayAtEnd";

const HOUR_S = 3600;

interface Props {
  segments: readonly Segment[];
  language: string | null;
  /** More text is to come. */
  isGrowing: boolean;
  isPlaying: boolean;
  place: Place;
  /** Play from a time on; null where there is nothing to play. */
  onSeek: ((timeS: number) => void) | null;
}

/**
 * The text with its times, in a frame of its own, so that text which comes does not move the page.
 * Hours of it are thousands of segments: they are drawn in blocks, and only those in sight.
 */
export function Transcript({ segments, language, isGrowing, isPlaying, place, onSeek }: Props) {
  const frame = useRef<HTMLElement>(null);
  const { isAtEnd, toEnd } = useStayAtEnd(frame, segments.length, isGrowing && !isPlaying);
  useFollowSound(frame, place.segment, isPlaying);
  const onKeyDown = useArrowKeys(frame);
  const blocks = Array.from({ length: Math.ceil(segments.length / BLOCK) }, (_, index) => index);
  const tabbable = Math.max(0, place.segment);
  return (
    <div className="transcript">
      <section
        ref={frame}
        className="transcript-frame"
        aria-label="Text with times"
        data-hours={(segments.at(-1)?.start_s ?? 0) >= HOUR_S || undefined}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keys
        tabIndex={0}
        lang={language ?? undefined}
        onKeyDown={onKeyDown}
      >
        {blocks.map((block) => (
          <SegmentBlock
            key={block}
            segments={segments}
            from={block * BLOCK}
            count={Math.min(BLOCK, segments.length - block * BLOCK)}
            place={within(place.segment, block) ? place : null}
            tabbable={within(tabbable, block) ? tabbable : -1}
            onSeek={onSeek}
          />
        ))}
      </section>
      {isGrowing && !isAtEnd && (
        <Button className="to-end" onPress={toEnd}>
          <Down /> Newest
        </Button>
      )}
    </div>
  );
}

const within = (segment: number, block: number) => Math.floor(segment / BLOCK) === block;
