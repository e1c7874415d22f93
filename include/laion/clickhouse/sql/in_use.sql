-- What says which build of a search table is in use, and all that has the name of one of its views.
SELECT name, comment
FROM system.tables
WHERE `database` = currentDatabase()
    AND (name IN ({search:String}, {near:String}) OR startsWith(name, concat({near:String}, '_')))
