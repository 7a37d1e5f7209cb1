//! Feeds the engine and carries out what it says.
