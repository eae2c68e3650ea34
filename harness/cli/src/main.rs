//! The touchstone binary: arguments, exit codes, wiring.
//!
//! One program plays several parts: what a person starts; PID 1 of the lab's namespaces; the
//! harness inside them; and for a second kernel its keeper on this machine and PID 1 in there. `ARCHITECTURE.md` shows how they live and die together.

mod args;
mod cluster;
mod doctor;
mod explain;
mod failed;
mod guest;
mod host;
mod inside;
mod job;
mod keeper;
mod kernel;
mod kind;
mod lab;
mod ledger;
mod list;
mod live;
mod outside;
mod replacement;
mod report;
mod say;
mod selection;
mod sim;
mod spec;
mod subjects;
mod trouble;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use touchstone_sys::InitRequest;

use crate::args::{Cli, Command, SubjectCommand};
use crate::failed::Failed;
use crate::say::{complain, say};

fn main() -> ExitCode {
    match InitRequest::from_args(std::env::args_os()) {
        Ok(None) => {}
        Ok(Some(init)) => return be_init(init),
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(error.code());
        }
    }
    if let Some(order) = guest::order(std::env::args_os()) {
        return guest::main(&order);
    }
    if let Some(number) = inside::order(std::env::args_os()) {
        return inside::main(number);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = !error.use_stderr();
            // Nothing can be said where the terminal itself is gone.
            let _ = error.print();
            return ExitCode::from(if asked { 0 } else { failed::USAGE });
        }
    };
    match dispatch(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(failed) => {
            complain(&failed.to_string());
            ExitCode::from(failed.code)
        }
    }
}

fn be_init(init: InitRequest) -> ExitCode {
    match init.run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(error.code())
        }
    }
}

fn dispatch(command: Command) -> Result<u8, Failed> {
    match command {
        Command::Run(run) => outside::run(&run),
        Command::List(list) => list::run(&list),
        Command::Explain(explain) => explain::run(&explain),
        Command::Spec(spec) => spec::run(&spec),
        Command::Doctor(doctor) => doctor::run(&doctor),
        Command::Report(report) => report::run(&report),
        Command::Lab(lab) => lab::run(&lab),
        Command::Cluster(command) => cluster::command(&command),
        Command::Clean(clean) => cluster::clean(&clean),
        Command::Subject(SubjectCommand::Fetch(fetch)) => subjects::fetch(&fetch),
        Command::Subject(SubjectCommand::List) => subjects::list(),
        Command::Subject(SubjectCommand::Features) => Ok(subjects::promises()),
        Command::Schema(schema) => {
            say(&schema.text()?);
            Ok(0)
        }
        Command::Completions { shell } => {
            let mut command = Cli::command();
            // Straight to the terminal it would panic where nobody reads on.
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command, "touchstone", &mut text);
            say(&String::from_utf8_lossy(&text));
            Ok(0)
        }
    }
}
