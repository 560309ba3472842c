import { useQuery } from "@tanstack/react-query";
import { configQuery } from "./account";

/** How often to ask where no stream comes through, and to try it again, as the server has it. */
export function useTiming(): { readonly pollMs?: number; readonly streamRetryMs?: number } {
  const { data: config } = useQuery(configQuery);
  if (!config) return {};
  return {
    pollMs: 1000 * config.poll_interval_s,
    streamRetryMs: 1000 * config.stream_retry_s,
  };
}
