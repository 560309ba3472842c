import { type RefObject, useCallback, useEffect, useState } from "react";
import type { Segment } from "../../api/sessions";
import { NOWHERE, type Place, placeAt } from "./place";

interface Playback {
  readonly place: Place;
  readonly isPlaying: boolean;
  /** Play from a time on, in seconds. */
  readonly seek: (timeS: number) => void;
}

/** What is heard now. Renders when the word changes, not with every frame. */
export function usePlayback(
  audio: RefObject<HTMLAudioElement | null>,
  segments: readonly Segment[],
): Playback {
  const [place, setPlace] = useState(NOWHERE);
  const [isPlaying, setPlaying] = useState(false);

  useEffect(() => {
    const player = audio.current;
    if (!player) return;
    const listening = new AbortController();
    const { signal } = listening;
    let frame = 0;
    const look = () => {
      const now = player.currentTime > 0 ? placeAt(segments, player.currentTime) : NOWHERE;
      setPlace((before) => (isSame(before, now) ? before : now));
      cancelAnimationFrame(frame);
      if (!player.paused) frame = requestAnimationFrame(look);
    };
    const change = () => {
      setPlaying(!player.paused);
      look();
    };
    for (const name of ["play", "pause", "ended", "seeking", "timeupdate"]) {
      player.addEventListener(name, change, { signal });
    }
    change();
    return () => {
      listening.abort();
      cancelAnimationFrame(frame);
    };
  }, [audio, segments]);

  const seek = useCallback(
    (timeS: number) => {
      const player = audio.current;
      if (!player) return;
      player.currentTime = timeS;
      void player.play().catch(() => {}); // the player itself shows why not
    },
    [audio],
  );
  return { place, isPlaying, seek };
}

const isSame = (one: Place, other: Place) =>
  one.segment === other.segment && one.word === other.word;
