import { Component, type ReactNode } from "react";
import { Button } from "./Button";
import { Notice } from "./Notice";

interface Props {
  /** Where the reader is; elsewhere another page is tried. */
  at: string;
  children: ReactNode;
}

interface State {
  readonly hasFailed: boolean;
}

/** In place of a page that breaks, word of it and a way on; without this all would go blank. */
export class Boundary extends Component<Props, State> {
  override state: State = { hasFailed: false };

  static getDerivedStateFromError(): State {
    return { hasFailed: true };
  }

  override componentDidUpdate({ at }: Props): void {
    if (this.state.hasFailed && at !== this.props.at) this.setState({ hasFailed: false });
  }

  override render() {
    if (!this.state.hasFailed) return this.props.children;
    return (
      <Notice heading="That did not work" text="Something unexpected went wrong on this page.">
        <Button kind="main" onPress={() => window.location.reload()}>
          Load it again
        </Button>
      </Notice>
    );
  }
}
