-- Accounts ---------------------------------------------------------------------------------------

CREATE TABLE users (
  id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  email         text NOT NULL CHECK (length(email) BETWEEN 3 AND 254),
  password_hash text NOT NULL,
  role          text NOT NULL CHECK (role IN ('patient', 'therapist', 'admin')),
  created_at    timestamptz NOT NULL DEFAULT now(),
  disabled_at   timestamptz
);
CREATE UNIQUE INDEX users_email_key ON users (lower(email));

-- One sign-in, by cookie or bearer token; revoking it ends both. The token holds only this id, signed.
CREATE TABLE logins (
  id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id     uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  created_at  timestamptz NOT NULL DEFAULT now(),
  expires_at  timestamptz NOT NULL,
  revoked_at  timestamptz,
  CHECK (expires_at > created_at)
);
CREATE INDEX logins_user_id_idx ON logins (user_id);

CREATE TABLE care_assignments (
  therapist_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  patient_id   uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (therapist_id, patient_id),
  CHECK (therapist_id <> patient_id)
);
CREATE INDEX care_assignments_patient_id_idx ON care_assignments (patient_id);

-- Sessions ---------------------------------------------------------------------------------------

-- The row changes at every status event, so what changes then is kept out of every index but the
-- one on status (heap-only updates; fillfactor leaves them room).
CREATE TABLE sessions (
  id              uuid PRIMARY KEY,
  owner_id        uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  title           text NOT NULL CHECK (length(title) BETWEEN 1 AND 300),
  file_name       text NOT NULL CHECK (length(file_name) <= 300),
  language        text CHECK (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$'),
  audio_key       text,                        -- in the audio store; null once the audio is deleted
  audio_type      text NOT NULL,               -- media type of the container
  size_bytes      bigint NOT NULL CHECK (size_bytes > 0),
  sha256          text NOT NULL,
  duration_s      double precision CHECK (duration_s >= 0),
  engine          text,
  status          text NOT NULL DEFAULT 'queued'
                  CHECK (status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')),
  stage           text NOT NULL DEFAULT 'queued'
                  CHECK (stage IN ('queued', 'decoding', 'transcribing', 'finalizing', 'done')),
  progress        int NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 100),
  error           json,
  attempt         int NOT NULL DEFAULT 1 CHECK (attempt >= 1),
  failures        int NOT NULL DEFAULT 0,      -- failed attempts since text was last committed
  interruptions   int NOT NULL DEFAULT 0,      -- lost leases since text was last committed
  lease_owner     text,
  lease_until     timestamptz,
  worker_seen_at  timestamptz,
  committed_s     double precision NOT NULL DEFAULT 0,  -- audio time up to which segments are stored
  segment_count   int NOT NULL DEFAULT 0,
  last_status_id  bigint NOT NULL DEFAULT 0,
  prev_status_id  bigint NOT NULL DEFAULT 0,
  created_at      timestamptz NOT NULL DEFAULT now(),
  queued_at       timestamptz NOT NULL DEFAULT now(),
  started_at      timestamptz,
  finished_at     timestamptz,
  CHECK ((lease_owner IS NULL) = (lease_until IS NULL)),
  CHECK (lease_owner IS NULL OR status = 'processing'),
  CHECK ((finished_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled'))),
  CHECK ((error IS NOT NULL) = (status = 'failed')),
  CHECK (status <> 'completed' OR (progress = 100 AND stage = 'done'))
) WITH (fillfactor = 70);
CREATE INDEX sessions_owner_id_created_at_idx ON sessions (owner_id, created_at DESC, id DESC);
CREATE INDEX sessions_unfinished_idx ON sessions (status, queued_at)
  WHERE status IN ('queued', 'processing');
CREATE UNIQUE INDEX sessions_audio_key_key ON sessions (audio_key);

CREATE TABLE idempotency_keys (
  user_id     uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  key         text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
  session_id  uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
  answer      json NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_keys_session_id_idx ON idempotency_keys (session_id);

-- Recordings in PostgreSQL. Written before the session row exists, hence no foreign key; what no
-- session refers to after a while is swept.
CREATE TABLE audio_chunks (
  audio_id    uuid NOT NULL,
  idx         int NOT NULL CHECK (idx >= 0),
  data        bytea NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (audio_id, idx)
);
ALTER TABLE audio_chunks ALTER COLUMN data SET STORAGE EXTERNAL;  -- already compressed; sliced reads

CREATE TABLE transcript_segments (
  session_id  uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
  idx         int NOT NULL CHECK (idx >= 0),
  start_s     double precision NOT NULL CHECK (start_s >= 0),
  end_s       double precision NOT NULL,
  text        text NOT NULL,
  words       json NOT NULL DEFAULT '[]',
  status_id   bigint NOT NULL,                 -- the status event that brought it
  PRIMARY KEY (session_id, idx),
  CHECK (end_s >= start_s)
);

-- Status events ----------------------------------------------------------------------------------

CREATE TABLE processing_status (
  session_id            uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
  id                    bigint NOT NULL,
  prev_id               bigint NOT NULL,
  attempt               int NOT NULL,
  status                text NOT NULL
                        CHECK (status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')),
  stage                 text NOT NULL
                        CHECK (stage IN ('queued', 'decoding', 'transcribing', 'finalizing', 'done')),
  progress              int NOT NULL CHECK (progress BETWEEN 0 AND 100),
  progress_kind         text NOT NULL CHECK (progress_kind IN ('measured', 'estimated', 'none')),
  message               text NOT NULL,
  duration_processed    double precision,
  duration_total        double precision,
  estimated_completion  timestamptz,
  processing_speed      double precision,
  segments              int NOT NULL,
  error                 json,
  timestamp             timestamptz NOT NULL,
  PRIMARY KEY (session_id, id),
  CHECK (id > prev_id),
  CHECK ((error IS NOT NULL) = (status = 'failed'))
);
CREATE INDEX processing_status_timestamp_idx ON processing_status (timestamp);  -- retention only

-- The one wire format of a status event: NOTIFY payload, SSE data, polling answer and history are
-- all this text.
CREATE FUNCTION status_message(event processing_status) RETURNS json
LANGUAGE sql STABLE AS $$
  SELECT json_build_object(
    'session_id', event.session_id,
    'id', event.id,
    'prev_id', event.prev_id,
    'attempt', event.attempt,
    'status', event.status,
    'stage', event.stage,
    'progress', event.progress,
    'progress_kind', event.progress_kind,
    'message', event.message,
    'timestamp', to_char(event.timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    'duration_processed', event.duration_processed,
    'duration_total', event.duration_total,
    'estimated_completion',
      to_char(event.estimated_completion AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    'processing_speed', event.processing_speed,
    'segments', event.segments,
    'error', event.error)
$$;

-- Streams ----------------------------------------------------------------------------------------

CREATE TABLE open_streams (
  stream_id   uuid PRIMARY KEY,
  user_id     uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  session_id  uuid REFERENCES sessions ON DELETE CASCADE,  -- null: the stream of all own sessions
  client_id   text,
  process_id  text NOT NULL,
  transport   text NOT NULL CHECK (transport IN ('sse', 'websocket')),
  opened_at   timestamptz NOT NULL DEFAULT now(),
  expires_at  timestamptz NOT NULL
);
CREATE INDEX open_streams_user_id_idx ON open_streams (user_id);
CREATE INDEX open_streams_process_id_idx ON open_streams (process_id);

CREATE TABLE stream_events (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at          timestamptz NOT NULL DEFAULT now(),
  kind        text NOT NULL CHECK (kind IN ('connect', 'disconnect', 'refused', 'fallback')),
  user_id     uuid REFERENCES users ON DELETE SET NULL,
  session_id  uuid REFERENCES sessions ON DELETE CASCADE,
  stream_id   uuid,
  transport   text,
  reason      text,
  details     json
);
CREATE INDEX stream_events_at_idx ON stream_events (at);
CREATE INDEX stream_events_session_id_idx ON stream_events (session_id);
