import { FieldError } from "react-aria-components/FieldError";
import { Input } from "react-aria-components/Input";
import { Label } from "react-aria-components/Label";
import { Text } from "react-aria-components/Text";
import { TextField as AriaTextField, type TextFieldProps } from "react-aria-components/TextField";

interface Props extends Omit<TextFieldProps, "className" | "children"> {
  label: string;
  /** Said after the label, softly, such as "optional". */
  note?: string;
  description?: string;
}

/** A labelled line of text, with what is wrong with it below. */
export function TextField({ label, note, description, ...rest }: Props) {
  return (
    <AriaTextField {...rest} className="field">
      <Label>
        {label} {note && <span className="soft">({note})</span>}
      </Label>
      <Input className="input" />
      {description && (
        <Text slot="description" className="soft small">
          {description}
        </Text>
      )}
      <FieldError className="field-error" />
    </AriaTextField>
  );
}
