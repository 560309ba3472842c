/** Something is on its way. Appears only after a moment, so that quick answers do not flicker. */
export function Loading({ label = "Loading…" }: { label?: string }) {
  return (
    <p className="loading soft" role="status">
      {label}
    </p>
  );
}
