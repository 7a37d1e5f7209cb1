//! Arguments to the CLI, its answer to an exit code.

use clap::Parser;
use hawser::demo::{self, DemoArgs};
use std::process::ExitCode;

#[derive(Parser)]
enum Verb {
    /// Run a complete cluster on this machine, break it, and measure what a visitor notices
    Demo(DemoArgs),
}

fn main() -> ExitCode {
    match Verb::parse() {
        Verb::Demo(arguments) => demo::run(&arguments),
    }
}
