//! The command line of what moves results between caches.

use clap::{Args, Subcommand};

use super::manifest::ManifestArguments;

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status:  0  the remote has all of them\n              \
1  something was not sent\n              \
2  nothing could be done: mistakes, no remote")]
pub(crate) struct PushArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status:  0  all of them are in the cache\n              \
1  some have no result, here or there, or one that is not as it was recorded\n              \
2  nothing could be done: mistakes, no remote")]
pub(crate) struct PullArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RemoteArguments {
    #[command(subcommand)]
    pub(crate) command: RemoteCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RemoteCommand {
    /// Show which results are in the cache, on the remote, or on both
    Status(RemoteStatusArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RemoteStatusArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// Show every instance of a stage, however many there are
    #[arg(long)]
    pub(crate) all: bool,
    /// Show also how many results the remote has, of anybody, and how much room they take there: it lists all of them
    #[arg(long)]
    pub(crate) size: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KeyArguments {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key, and print the line that others trust it by
    New,
    /// Print the line that others trust your key by
    Show,
}
