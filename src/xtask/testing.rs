//! Helpers of the unit tests.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

static PROGRAMS: Mutex<()> = Mutex::new(());

/// To be held by a test that writes a program and runs it. A child that another thread starts meanwhile would, for
/// a moment, hold the program open for writing, and then it cannot be run (ETXTBSY).
pub fn alone() -> MutexGuard<'static, ()> {
    PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a shell script that can be run.
pub fn program(file: &Path, script: &str) {
    fs::write(file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o755)).unwrap();
}
