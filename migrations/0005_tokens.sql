-- Named sign-ins are tokens that a person has made for a program.
ALTER TABLE logins
  ADD COLUMN name          text CHECK (length(name) BETWEEN 1 AND 100),
  ADD COLUMN last_used_at  timestamptz;    -- of a token; noted once a minute at most
