//! Arguments to the CLI, its answer to an exit code.

fn main() -> std::process::ExitCode {
    hawser::cli::main(std::env::args_os())
}
