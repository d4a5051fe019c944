//! The subcommands, one file each; beside them what they share.

mod cache;
mod cancel;
mod checking;
mod compare;
mod completions;
mod errors;
mod export;
mod gc;
mod graph;
mod hint;
mod history;
mod init;
mod init_data;
mod job;
mod key;
mod kinds;
mod log;
mod log_follow;
mod log_lines;
mod man;
mod metered;
mod metrics;
mod nearest;
mod newest_log;
mod output;
mod path;
mod plan;
mod planner;
mod project;
mod pull;
mod push;
mod push_order;
mod recorded;
mod remote;
mod remote_results;
mod report;
mod results;
mod run;
mod run_part;
mod schema;
mod settings;
mod slurm_script;
mod status;
mod status_sheet;
mod status_watch;
mod time_left;
mod track;
mod verify;
mod verify_rerun;
mod verify_restore;
mod watch;
mod whole_file;
mod why;

use std::borrow::Cow;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches};
use clap_complete::CompleteEnv;
use pipeline_stages::url::blanked;
use pipeline_stages::worker::file_size_limit_is_an_error;

use crate::cli::{Arguments, Command};
use crate::colour;
use crate::manifest;
use errors::report_error;

/// Runs the command that the arguments of the process ask for.
pub(crate) fn main() -> ExitCode {
    if let Err(error) = file_size_limit_is_an_error().context("cannot listen to signals") {
        return report_error(error);
    }
    // A shell that asks what to offer: this does not return then.
    CompleteEnv::with_factory(Arguments::command).var(completions::VARIABLE).complete();
    let asked = colour::asked(std::env::args_os());
    colour::choose(asked);
    let mut command = without_empty_variables(Arguments::command().color(asked));
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let arguments = matches.and_then(|matches| {
        Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    });
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(error) => return report_arguments(with_near_command(error, &command)),
    };
    let result = match &arguments.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Plan(arguments) => plan::run(arguments),
        Command::Watch(arguments) => watch::run(arguments),
        Command::Graph(arguments) => graph::run(arguments),
        Command::Why(arguments) => why::run(arguments),
        Command::Cancel(arguments) => cancel::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Metrics(arguments) => metrics::run(arguments),
        Command::Results(arguments) => results::run(arguments),
        Command::Compare(arguments) => compare::run(arguments),
        Command::History(arguments) => history::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Track(arguments) => track::run(arguments),
        Command::Log(arguments) => log::run(arguments),
        Command::Path(arguments) => path::run(arguments),
        Command::SlurmScript(arguments) => slurm_script::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Gc(arguments) => gc::run(arguments),
        Command::Cache(arguments) => cache::run(arguments),
        Command::Push(arguments) => push::run(arguments),
        Command::Pull(arguments) => pull::run(arguments),
        Command::Remote(arguments) => remote::run(arguments),
        Command::Key(arguments) => key::run(arguments),
        Command::Kinds(arguments) => kinds::run(arguments),
        Command::Schema => schema::run(),
        Command::Init(arguments) => init::run(arguments),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Man(arguments) => man::run(arguments),
        Command::Job(arguments) => job::run(arguments),
    };
    result.unwrap_or_else(report_error)
}

/// The command line, where a variable of the environment that is empty is not set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |argument: &clap::Arg| {
        let value = argument.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty())
    };
    command.mut_subcommands(|command| {
        command.mut_args(|argument| {
            if is_empty(&argument) {
                argument.env(clap::builder::Resettable::Reset)
            } else {
                argument
            }
        })
    })
}

/// An error about a command that does not exist, with the one that is near: letters that are swapped, too.
fn with_near_command(mut error: clap::Error, known: &clap::Command) -> clap::Error {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    let names = known.get_subcommands().filter(|command| !command.is_hide_set());
    if let Some(near) = manifest::nearest(given, names.map(clap::Command::get_name)) {
        let near = ContextValue::Strings(vec![near.to_owned()]);
        error.insert(ContextKind::SuggestedSubcommand, near);
    }
    error
}

/// What is wrong with the arguments, or the help that they ask for.
fn report_arguments(error: clap::Error) -> ExitCode {
    let text = error.to_string();
    match blanked(&text) {
        // It repeats what was given: a URL with a password.
        Cow::Owned(text) => {
            report_error(anyhow!("{}", text.trim_start_matches("error: ").trim_end()))
        }
        Cow::Borrowed(_) => error.exit(),
    }
}
