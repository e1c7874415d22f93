CHECK GRANT $grant ON $database.*
