//! What a person types and reads.
//!
//! [`args`] is the tree of verbs; each verb has a small file. A verb gives back its exit code and says on standard error
//! what could not be done, to what, and why.

pub mod args;
mod change;
mod check;
mod history;
mod init;
mod out;
mod run;
mod serve;
mod status;

use args::{Cli, Verb};
use clap::{CommandFactory, Parser};
use std::{ffi::OsString, process::ExitCode};

/// Exit code of a configuration with faults (`EX_CONFIG`, sysexits(3)).
pub const EXIT_CONFIG: u8 = 78;

/// Does what the arguments say.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too, and go to standard output; a closed pipe is nobody's fault.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match cli.verb {
        Verb::Run(args) => run::run(&args),
        Verb::Worker(args) => run::worker(&args),
        Verb::Witness(args) => run::witness(&args),
        Verb::Init(args) => init::init(&args),
        Verb::Check(args) => check::check(&args),
        Verb::Status(args) => status::status(&args),
        Verb::Switchover(args) => change::switchover(&args),
        Verb::Standby(args) => change::standby(&args),
        Verb::Unstandby(args) => change::unstandby(&args),
        Verb::ConfirmFenced(args) => change::confirm_fenced(&args),
        Verb::History(args) => history::history(&args),
        Verb::Serve(args) => serve::serve(&args),
        Verb::Demo(args) => crate::demo::run(&args),
        Verb::Completions { shell } => completions(shell),
        Verb::Man { verb } => man(verb.as_deref()),
    }
}

fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hawser", &mut text);
    out::write(&text);
    ExitCode::SUCCESS
}

fn man(verb: Option<&str>) -> ExitCode {
    let mut command = Cli::command();
    command.build();
    if let Some(verb) = verb {
        let Some(found) = command.find_subcommand(verb) else {
            out::error(format_args!("there is no verb \"{verb}\": see hawser --help"));
            return ExitCode::from(2);
        };
        command = found.clone();
    }
    let mut text = Vec::new();
    match clap_mangen::Man::new(command).render(&mut text) {
        Ok(()) => {
            out::write(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            out::error(format_args!("cannot write the page: {error}"));
            ExitCode::FAILURE
        }
    }
}
