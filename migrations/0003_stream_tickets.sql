-- What opens a stream once, without a header: kept as its hash, so that a copy of the table opens none.
CREATE TABLE stream_tickets (
  ticket_hash bytea PRIMARY KEY CHECK (octet_length(ticket_hash) = 32),
  login_id    uuid NOT NULL REFERENCES logins ON DELETE CASCADE,
  session_id  uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
  expires_at  timestamptz NOT NULL
);
CREATE INDEX stream_tickets_expires_at_idx ON stream_tickets (expires_at);
-- For the cascades.
CREATE INDEX stream_tickets_login_id_idx ON stream_tickets (login_id);
CREATE INDEX stream_tickets_session_id_idx ON stream_tickets (session_id);
