//! A policy as rules of Landlock, which the kernel enforces on a thread and all that it starts.
//!
//! Needs no privilege. The kernel does not say which file it refused: `observer` does.

use anyhow::{Context as _, anyhow};
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr,
};

use super::policy::{Access, Policy};

/// The newest version of Landlock whose rights on files were looked at. A right that the kernel does not know yet is not
/// restricted.
const KNOWN: ABI = ABI::V7;

/// The rules of a policy, not yet in force.
///
/// # Errors
/// When the kernel does not have Landlock.
pub(super) fn ruleset(policy: &Policy) -> anyhow::Result<RulesetCreated> {
    let all = AccessFs::from_all(KNOWN);
    let create = || {
        let least = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let least = least.handle_access(AccessFs::from_all(ABI::V1))?;
        least.set_compatibility(CompatLevel::BestEffort).handle_access(all)?.create()
    };
    let mut rules = create().map_err(|_| {
        anyhow!(
            "sandbox = \"on\" needs Landlock, which this system does not have: it is in Linux 5.13 and newer, unless it was left out \
             or is not in the list that the kernel was started with (lsm=); with sandbox = \"warn\" or \"off\" the stage runs"
        )
    })?;
    for (access, path) in policy.rules() {
        let rights: BitFlags<AccessFs> = match access {
            Access::List => AccessFs::ReadDir.into(),
            Access::Read => AccessFs::from_read(KNOWN),
            Access::Write => all,
        };
        // What has gone since it was found cannot be used anyway.
        let Ok(place) = PathFd::new(path) else { continue };
        rules = rules
            .add_rule(PathBeneath::new(place, rights))
            .with_context(|| format!("cannot allow {} in the sandbox", path.display()))?;
    }
    Ok(rules)
}

/// Enforces the rules on this thread, and on all that it starts, for ever.
pub(super) fn restrict(rules: RulesetCreated) -> anyhow::Result<()> {
    rules.restrict_self().map(drop).context("cannot start the sandbox")
}
