//! A project to which anything happens, and what that was.

use std::ops::Deref;
use std::thread;

use crate::support::Sandbox;

/// A project that remembers what happens to it. Where its test fails, that is shown, and the folder stays.
pub struct Project {
    sandbox: Sandbox,
    happened: Vec<String>,
}

impl Project {
    /// One to which nothing has happened yet; a seed decides what will.
    pub fn new(sandbox: Sandbox, seed: u64) -> Self {
        Self { sandbox, happened: vec![format!("PIPELINE_SEED={seed} PIPELINE_ROUNDS=1")] }
    }

    /// Remembers what happens.
    pub fn remember(&mut self, what: String) {
        self.happened.push(what);
    }
}

impl Deref for Project {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if thread::panicking() {
            let happened = self.happened.join("\n    ");
            eprintln!("{happened}\nthe folder stays: {}", self.sandbox.keep().display());
        }
    }
}
