SELECT name, free_space, total_space
FROM system.disks
WHERE total_space > 0
