//! Stories of the command line, with the real program: what a user types, and all that comes back.
//!
//! Each story has a folder of its own, and needs no network, no libtorch and no particular machine.

mod all_instances;
mod blocked;
mod caching;
mod crash;
mod damage;
mod filter;
mod fit;
mod forced;
mod handed_out;
mod hostile;
mod instances;
mod invariants;
mod jobs;
mod manifests;
mod matrix;
mod measured;
mod mistakes;
mod nearest;
mod own_images;
mod places;
mod pretrained;
mod reads;
mod reports;
mod secrets;
mod selecting;
mod support;
mod suspended;
mod sweeping;
mod sweeping_values;
mod terminal;
mod together;
mod users;
mod verify;
mod verify_rerun;
mod workers;
