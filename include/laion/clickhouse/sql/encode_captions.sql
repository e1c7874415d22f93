-- Some rows: enough to tell whether table and function belong to one model.
SELECT text_embedding, encode_text(caption)
FROM (SELECT caption, text_embedding FROM $table WHERE caption != '' LIMIT {limit:UInt32})
