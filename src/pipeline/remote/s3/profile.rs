//! The files of profiles that other clients of object stores use, too: `~/.aws/config` and `~/.aws/credentials`. Pure.

use std::collections::HashMap;

/// Profiles by their names, each with its settings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Profiles(HashMap<String, HashMap<String, String>>);

impl Profiles {
    /// Reads a file. What is not known in it is left out.
    pub(super) fn read(text: &str) -> Self {
        let mut profiles = Self::default();
        let mut profile = None;
        for line in text.lines() {
            let is_nested = line.starts_with([' ', '\t']);
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                let name = name.trim();
                profile = Some(name.strip_prefix("profile ").unwrap_or(name).trim().to_owned());
                continue;
            }
            // What is nested belongs to a setting of another service.
            if let (Some(profile), Some((key, value)), false) =
                (&profile, line.split_once('='), is_nested)
            {
                let settings = profiles.0.entry(profile.clone()).or_default();
                settings.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
            }
        }
        profiles
    }

    /// A setting of a profile, if it is set.
    pub(super) fn get(&self, profile: &str, key: &str) -> Option<&str> {
        self.0.get(profile)?.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether there is a profile of this name.
    pub(super) fn has(&self, profile: &str) -> bool {
        self.0.contains_key(profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_have_settings_and_what_is_nested_is_not_theirs() {
        let text = "# mine\nregion = lost\n[default]\nregion = eu-west-1\n; no\nAWS_Access_Key_Id=A=B\n\
            [profile lab]\ns3 =\n  region = nested\nregion=us-east-2\nempty =\n[other]\nregion = x\n";
        let profiles = Profiles::read(text);
        for (profile, key, value) in [
            ("default", "region", Some("eu-west-1")),
            ("default", "aws_access_key_id", Some("A=B")),
            ("lab", "region", Some("us-east-2")),
            ("lab", "empty", None),
            ("other", "region", Some("x")),
            ("missing", "region", None),
        ] {
            assert_eq!(profiles.get(profile, key), value, "{profile} {key}");
        }
        assert!(profiles.has("lab") && !profiles.has("profile lab"));
    }
}
