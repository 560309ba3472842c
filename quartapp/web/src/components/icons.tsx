import type { ReactNode } from "react";

/** A small picture beside words that say the same. */
function Icon({ children }: { children: ReactNode }) {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      {children}
    </svg>
  );
}

/** The product's mark. */
export function Mark() {
  return (
    <svg className="mark" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <rect className="mark-ground" width="32" height="32" rx="8" />
      <path className="mark-wave" d="M7 14v4M11.5 10.5v11M16 7v18M20.5 11.5v9M25 14v4" />
    </svg>
  );
}

export const Person = () => (
  <Icon>
    <circle cx="12" cy="8" r="4" />
    <path d="M4 20c1.5-4 4.5-6 8-6s6.5 2 8 6" />
  </Icon>
);

export const Bin = () => (
  <Icon>
    <path d="M4 7h16M10 4h4M6.5 7l1 13h9l1-13M10 11v5M14 11v5" />
  </Icon>
);

export const Cross = () => (
  <Icon>
    <path d="M6 6l12 12M18 6L6 18" />
  </Icon>
);

export const Upload = () => (
  <Icon>
    <path d="M12 16V5M7 9l5-5 5 5M4 16v4h16v-4" />
  </Icon>
);

export const Search = () => (
  <Icon>
    <circle cx="11" cy="11" r="6" />
    <path d="M16 16l4 4" />
  </Icon>
);

export const Download = () => (
  <Icon>
    <path d="M12 4v11M7 11l5 5 5-5M4 20h16" />
  </Icon>
);

export const Copy = () => (
  <Icon>
    <rect x="9" y="9" width="11" height="11" rx="2" />
    <path d="M5 15V5a1 1 0 0 1 1-1h9" />
  </Icon>
);

export const Bell = () => (
  <Icon>
    <path d="M6 17h12l-1.5-3V10a4.5 4.5 0 0 0-9 0v4zM10 20h4" />
  </Icon>
);

export const Down = () => (
  <Icon>
    <path d="M12 5v14M6 13l6 6 6-6" />
  </Icon>
);
