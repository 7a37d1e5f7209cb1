//! Arguments to the CLI, its answer to an exit code.

/// glibc's allocator keeps memory of many threads apart for long; this one gives it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    hawser::cli::main(std::env::args_os())
}
