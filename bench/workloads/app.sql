-- SPDX-License-Identifier: Apache-2.0
-- sqlite: inserts, indexes, joins, aggregates, updates and deletes in memory.
PRAGMA temp_store = memory;
CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT, town INTEGER);
CREATE TABLE sale(id INTEGER PRIMARY KEY, person INTEGER, amount INTEGER,
	day INTEGER);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
	INSERT INTO person SELECT i, printf('name-%05d', i * 7919 % 20000),
		i * 31 % 97 FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120000)
	INSERT INTO sale SELECT i, i * 7907 % 20000 + 1, i * 101 % 1000,
		i * 17 % 365 FROM n;
COMMIT;
CREATE INDEX sale_person ON sale(person);
CREATE INDEX person_name ON person(name);
SELECT town, count(*), sum(amount) FROM person JOIN sale
	ON sale.person = person.id GROUP BY town ORDER BY 3 DESC, 1 LIMIT 5;
SELECT name, (SELECT sum(amount) FROM sale WHERE sale.person = person.id) AS s
	FROM person WHERE name LIKE 'name-1%' ORDER BY s DESC, name LIMIT 5;
UPDATE sale SET amount = amount * 2 WHERE day % 7 = 3;
DELETE FROM sale WHERE person IN (SELECT id FROM person WHERE town < 10);
SELECT day % 12, count(*), sum(amount), max(amount) FROM sale GROUP BY 1
	ORDER BY 1;
SELECT count(*) FROM person a JOIN person b ON a.name < b.name
	WHERE a.town = 5 AND b.town = 6;
