//! What must survive: the promise file, and the versioned keyspace. The only place that names sled.
