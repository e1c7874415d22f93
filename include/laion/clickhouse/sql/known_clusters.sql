SELECT groupUniqArray(cluster) FROM system.clusters
