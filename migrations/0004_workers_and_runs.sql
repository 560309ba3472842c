-- Workers ----------------------------------------------------------------------------------------

-- Processes that transcribe. One not seen for as long as a lease lasts is lost; one that stops in
-- order takes its row with it.
CREATE TABLE workers (
  id          text PRIMARY KEY,            -- of the process, as in sessions.lease_owner
  host        text NOT NULL,
  engine      text NOT NULL,
  slots       int NOT NULL CHECK (slots > 0),
  started_at  timestamptz NOT NULL DEFAULT now(),
  seen_at     timestamptz NOT NULL DEFAULT now()
);

-- What finished attempts took: the ground for estimates, and how good these were.
CREATE TABLE transcription_runs (
  id                    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  session_id            uuid REFERENCES sessions ON DELETE SET NULL,
  attempt               int NOT NULL,
  engine                text NOT NULL,
  host                  text NOT NULL,
  audio_s               double precision NOT NULL CHECK (audio_s > 0),  -- recognised by this attempt
  setup_s               double precision NOT NULL CHECK (setup_s >= 0), -- from its claim to its first word
  wall_s                double precision NOT NULL CHECK (wall_s >= setup_s), -- from its claim to its end
  predicted_completion  timestamptz,       -- said when it began; null without ground
  completed_at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX transcription_runs_engine_completed_at_idx
  ON transcription_runs (engine, completed_at DESC);
CREATE INDEX transcription_runs_session_id_idx ON transcription_runs (session_id);

-- When a recording of each user was last begun, by which users take turns.
CREATE TABLE last_turns (
  owner_id  uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
  at        timestamptz NOT NULL
);

-- Sessions ---------------------------------------------------------------------------------------

ALTER TABLE sessions
  ADD COLUMN detected_language text,       -- by the engine, when none was given
  ADD COLUMN told_position int;            -- in the queue, as last said in an event

-- Retention --------------------------------------------------------------------------------------

-- What is over, by its end, so that a search for what is old enough reads nothing else.
CREATE INDEX sessions_finished_at_idx ON sessions (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX sessions_completed_audio_idx ON sessions (finished_at)
  WHERE status = 'completed' AND audio_key IS NOT NULL;
CREATE INDEX sessions_unfinished_audio_idx ON sessions (finished_at)
  WHERE status IN ('failed', 'cancelled') AND audio_key IS NOT NULL;
CREATE INDEX logins_ended_at_idx ON logins (least(expires_at, revoked_at));
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);
CREATE INDEX transcription_runs_completed_at_idx ON transcription_runs (completed_at);

-- The last event of a session that is over stays, and would be met by each search anew.
DROP INDEX processing_status_timestamp_idx;
CREATE INDEX processing_status_passing_timestamp_idx ON processing_status (timestamp)
  WHERE status IN ('queued', 'processing');

-- One entry for each recording, in the order in which the search for those of no session goes.
CREATE INDEX audio_chunks_first_idx ON audio_chunks (audio_id, created_at) WHERE idx = 0;
