INSERT INTO $staging ($columns)
SELECT $values
FROM s3($place)
