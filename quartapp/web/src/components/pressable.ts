/**
 * React Aria writes one rule as an inline style, which the content security policy forbids; it does
 * not when an element of this id is there. The rule itself stands in base.css.
 */
export function spareInlineStyles(): void {
  const holder = document.createElement("meta");
  holder.id = "react-aria-pressable-style";
  document.head.append(holder);
}
