//! Stories of the command line, with the real program: what a user types, and all that comes back.
//!
//! Each story has a folder of its own, and needs no network, no libtorch and no particular machine.

mod all_instances;
mod blocked;
mod caching;
mod completions;
mod crash;
mod damage;
mod filter;
mod fit;
mod forced;
mod handed_out;
mod history;
mod hostile;
mod init_data;
mod instances;
mod invariants;
mod jobs;
mod latest;
mod manifests;
mod matrix;
mod measured;
mod mistakes;
mod mlflow;
mod nearest;
mod places;
mod pretrained;
mod reads;
mod report_page;
mod reports;
mod results;
mod secrets;
mod selecting;
mod summaries;
mod support;
mod suspended;
mod sweeping;
mod sweeping_values;
mod terminal;
mod together;
mod tracking;
mod tutorial;
mod users;
mod verify;
mod verify_rerun;
mod workers;
