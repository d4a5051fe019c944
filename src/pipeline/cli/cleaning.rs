//! The command line of what cleans the cache, and shows what takes room in it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cache::Limit;
use crate::format;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:\n  \
pipeline gc --dry-run                      what would go, and how much room that frees\n  \
pipeline gc --keep-days 7                  what was not used for a week\n  \
pipeline gc --max-size 200GB               also what was used longest ago, until the rest fits\n  \
pipeline gc --keep paper.toml thesis.toml  but not the results of these\n\n\
Exit status:  0  done\n              \
1  something could not be removed, or what is needed takes more than --max-size\n              \
2  nothing could be done\n            \
130  interrupted: the next gc, or the next run that has work to do, removes the rest")]
pub(crate) struct GcArguments {
    /// Keep what was used in the last N days
    #[arg(long, value_name = "N", default_value_t = 30, allow_negative_numbers = true, value_parser = days)]
    pub(crate) keep_days: u64,
    /// After that, remove what was used longest ago until the cache takes no more room than this: `200GB`, `1.5 TiB`
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = format::read_size)]
    pub(crate) max_size: Option<u64>,
    /// Keep the results of these manifests, as they are now
    #[arg(long, value_name = "MANIFEST", num_args = 1..)]
    pub(crate) keep: Vec<PathBuf>,
    /// Only show what would be removed
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) cache: CacheFolder,
}

#[derive(Debug, Args)]
pub(crate) struct CacheArguments {
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show what takes room in the cache, by experiment and kind of stage
    ///
    /// Sizes are what is allocated on the disk. What several experiments use is counted once.
    Size(CacheSizeArguments),
    /// Show or set how much room the cache may take
    ///
    /// A cache with a limit cleans itself: once a day, at the end of a run, what was used longest ago goes until it fits. What
    /// `gc` keeps in any case stays. The limit is in the cache, for everybody who uses it; `cache-limit` of your config.toml
    /// is for caches without one.
    Limit(CacheLimitArguments),
}

/// Which cache.
#[derive(Debug, Args)]
pub(crate) struct CacheFolder {
    /// The cache [env: PIPELINE_CACHE; default: `cache` in the nearest folder above this one that
    /// has one or a `.git`]
    #[arg(short = 'C', long = "cache", value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CacheSizeArguments {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) cache: CacheFolder,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:\n  \
pipeline cache limit          what it is\n  \
pipeline cache limit 500GB\n  \
pipeline cache limit none     whatever room there is")]
pub(crate) struct CacheLimitArguments {
    /// How much: `500GB`, `1.5 TiB`, or `none`
    #[arg(value_name = "SIZE", allow_hyphen_values = true, value_parser = limit)]
    pub(crate) limit: Option<Limit>,
    #[command(flatten)]
    pub(crate) cache: CacheFolder,
}

fn days(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "it must be a whole number of days, of at least 0".to_owned())
}

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit::None),
        size => format::read_size(size).map(Limit::Bytes),
    }
}
