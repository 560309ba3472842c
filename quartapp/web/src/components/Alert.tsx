import type { ReactNode } from "react";

/** What went wrong with what the reader just did; read out at once. */
export function Alert({ children }: { children: ReactNode }) {
  return (
    <p className="alert" role="alert">
      {children}
    </p>
  );
}
