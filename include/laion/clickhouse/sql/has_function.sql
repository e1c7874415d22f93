SELECT 1 FROM system.functions WHERE name = {name:String} LIMIT 1
