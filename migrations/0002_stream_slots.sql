-- Slots of streams -------------------------------------------------------------------------------

-- A web process that serves streams. It renews its row while it lives; once it has not, its streams
-- count no more.
CREATE TABLE web_processes (
  process_id  text PRIMARY KEY,
  started_at  timestamptz NOT NULL DEFAULT now(),
  expires_at  timestamptz NOT NULL
) WITH (fillfactor = 50);

DELETE FROM open_streams;
ALTER TABLE open_streams
  DROP COLUMN expires_at,
  ADD COLUMN replaced boolean NOT NULL DEFAULT false,  -- the same client opened another
  ADD FOREIGN KEY (process_id) REFERENCES web_processes ON DELETE CASCADE;
CREATE INDEX open_streams_session_id_idx ON open_streams (session_id);

CREATE INDEX stream_events_user_id_at_idx ON stream_events (user_id, at);

-- What one user may have open, decided under a lock of that user, for all processes at a time.
--
-- `wanted` is an array of {stream_id, user_id, session_id, client_id, transport}. A slot of the same
-- client on the same session is taken over; when the user has no slot left, so is the oldest other
-- one of that client. `refusal` is null for what was granted, else what was in the way: `opens` (too
-- many in the last minute), `streams` (too many at a time) or `gone` (no such user or session).
CREATE FUNCTION take_stream_slots(wanted json, owner_process text, most_streams int, most_opens int)
RETURNS TABLE (taker uuid, refusal text, retry_after_s double precision, taken_over uuid[])
LANGUAGE plpgsql AS $$
DECLARE
  one record;
  in_use int;
  opened int;
  first_at timestamptz;
BEGIN
  -- Somebody may have thought the process dead for long enough to forget it; its next sign of life
  -- says for how long it counts.
  INSERT INTO web_processes (process_id, expires_at)
  VALUES (owner_process, clock_timestamp() + interval '20 seconds') ON CONFLICT DO NOTHING;
  FOR one IN
    SELECT item.* FROM json_to_recordset(wanted) AS item (
      stream_id uuid, user_id uuid, session_id uuid, client_id text, transport text)
    ORDER BY hashtext(item.user_id::text)  -- one order for all, so that none waits for each other
  LOOP
    PERFORM pg_advisory_xact_lock(7116001, hashtext(one.user_id::text));
    taker := one.stream_id;
    refusal := NULL;
    retry_after_s := NULL;
    SELECT count(*), min(at) INTO opened, first_at FROM stream_events
    WHERE user_id = one.user_id AND kind = 'connect' AND at > clock_timestamp() - interval '1 minute';
    taken_over := ARRAY(
      SELECT stream_id FROM open_streams
      WHERE user_id = one.user_id AND client_id = one.client_id
        AND session_id IS NOT DISTINCT FROM one.session_id AND NOT replaced);
    SELECT count(*) INTO in_use FROM open_streams JOIN web_processes USING (process_id)
    WHERE user_id = one.user_id AND NOT replaced AND stream_id <> ALL (taken_over)
      AND expires_at > clock_timestamp();
    IF in_use >= most_streams THEN
      taken_over := taken_over || ARRAY(
        SELECT stream_id FROM open_streams
        WHERE user_id = one.user_id AND client_id = one.client_id AND NOT replaced
          AND stream_id <> ALL (taken_over)
        ORDER BY opened_at LIMIT 1);
      SELECT count(*) INTO in_use FROM open_streams JOIN web_processes USING (process_id)
      WHERE user_id = one.user_id AND NOT replaced AND stream_id <> ALL (taken_over)
        AND expires_at > clock_timestamp();
    END IF;
    IF opened >= most_opens THEN
      refusal := 'opens';
      retry_after_s := extract(epoch FROM first_at + interval '1 minute' - clock_timestamp());
    ELSIF in_use >= most_streams THEN
      refusal := 'streams';
    ELSE
      BEGIN
        INSERT INTO open_streams (
          stream_id, user_id, session_id, client_id, process_id, transport, opened_at)
        VALUES (one.stream_id, one.user_id, one.session_id, one.client_id, owner_process,
                one.transport, clock_timestamp());
        INSERT INTO stream_events (at, kind, user_id, session_id, stream_id, transport)
        VALUES (clock_timestamp(), 'connect', one.user_id, one.session_id, one.stream_id,
                one.transport);
        UPDATE open_streams SET replaced = true WHERE stream_id = ANY (taken_over);
      EXCEPTION WHEN foreign_key_violation THEN
        refusal := 'gone';
      END;
    END IF;
    IF refusal IS NOT NULL THEN
      taken_over := '{}';
      -- Once in a while is enough to see who is being refused.
      INSERT INTO stream_events (at, kind, user_id, session_id, transport, reason)
      SELECT clock_timestamp(), 'refused', one.user_id, one.session_id, one.transport, refusal
      WHERE refusal <> 'gone' AND NOT EXISTS (
        SELECT FROM stream_events
        WHERE user_id = one.user_id AND kind = 'refused'
          AND at > clock_timestamp() - interval '10 seconds');
    END IF;
    RETURN NEXT;
  END LOOP;
END $$;
