SELECT id, $column::Array(Float32) AS vector
FROM $table
WHERE shard BETWEEN {first:UInt16} AND {last:UInt16} AND $ranges AND $indexable
SETTINGS max_block_size = 8192, output_format_arrow_compression_method = 'none'
