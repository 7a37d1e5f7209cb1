//! Arguments to the CLI, its answer to an exit code.

fn main() {}
