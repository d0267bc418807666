-- The database and its owner, who is no superuser. Runs once, when the data directory is new.
\set password `cat /run/secrets/postgres_password`
CREATE ROLE marketflow LOGIN PASSWORD :'password';
CREATE DATABASE marketflow OWNER marketflow;
REVOKE ALL ON DATABASE marketflow FROM PUBLIC;
