import { Input } from "react-aria-components/Input";
import { SearchField } from "react-aria-components/SearchField";
import { Button } from "../../components/Button";
import { Choice } from "../../components/Choice";
import { Cross, Search } from "../../components/icons";
import { BADGES, type Status } from "../../words/status";

interface Props {
  text: string;
  status: Status | null;
  onText: (text: string) => void;
  onStatus: (status: Status | null) => void;
}

/** Search by title, and one status alone. */
export function Filters({ text, status, onText, onStatus }: Props) {
  return (
    <search className="filters">
      <SearchField className="search" aria-label="Search by title" value={text} onChange={onText}>
        <Search />
        <Input className="input" placeholder="Search by title" maxLength={300} />
        {text && (
          <Button kind="icon">
            <Cross />
          </Button>
        )}
      </SearchField>
      <Choice
        label="Status"
        isLabelHidden
        value={status ?? ""}
        onChange={(chosen) => onStatus((chosen || null) as Status | null)}
      >
        <option value="">Every status</option>
        {Object.entries(BADGES).map(([value, name]) => (
          <option key={value} value={value}>
            {name}
          </option>
        ))}
      </Choice>
    </search>
  );
}
