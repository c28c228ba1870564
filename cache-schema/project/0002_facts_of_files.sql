-- What each file is to a manifest (JSON): content, executable, link or missing. `digest` is no longer written; rows
-- without a fact are older and are read anew. An older effai reads its rows and finds no digest that agrees.
ALTER TABLE files ADD COLUMN fact TEXT;
DELETE FROM files;
