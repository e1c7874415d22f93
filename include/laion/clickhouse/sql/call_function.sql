SELECT $function(arrayJoin({values:Array(String)}))
