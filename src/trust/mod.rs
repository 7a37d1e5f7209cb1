//! Who is let in: the cluster's CA and secrets, identities, TLS settings, sealed datagrams.
