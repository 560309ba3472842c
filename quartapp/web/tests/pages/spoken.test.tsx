import { cleanup, render, screen } from "@testing-library/react";
import { afterEach, expect, test } from "vitest";
import type { Session } from "../../src/api/sessions";
import { Announcer } from "../../src/components/Announcer";
import { useSpokenProgress } from "../../src/pages/session/useSpokenProgress";
import { session } from "./people";

afterEach(cleanup);

function Listened({ session }: { session: Session }) {
  useSpokenProgress(session);
  return <Announcer />;
}

test("those who listen to the page hear of milestones and of the end, and of nothing between", () => {
  const heard = () => screen.getByRole("status").textContent;
  const { rerender } = render(<Listened session={session({ progress: 60 })} />);
  rerender(<Listened session={session({ progress: 70 })} />);
  expect(heard()).toBe("");
  rerender(<Listened session={session({ progress: 75 })} />);
  expect(heard()).toBe("75 %");
  rerender(<Listened session={session({ progress: 80 })} />);
  expect(heard()).toBe("75 %");
  rerender(<Listened session={session({ status: "completed", progress: 100 })} />);
  expect(heard()).toBe("Garden talk: the transcript is ready.");
});
