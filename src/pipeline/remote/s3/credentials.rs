//! Who asks an object store, and which one: from the environment, from files of profiles, or from a program that they name.
//!
//! Nothing of it is ever shown, but for names of variables, files and profiles.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow, bail, ensure};
use rusty_s3::Credentials;
use serde::Deserialize;

use super::profile::Profiles;
use crate::deadline::Deadline;
use crate::remote_address::S3Address;

const KEY: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";

/// What profiles have whose credentials come from elsewhere, after a login or as those of a role.
const UNSUPPORTED: [&str; 5] =
    ["sso_session", "sso_start_url", "role_arn", "web_identity_token_file", "login_session"];

/// How long a program may take to print credentials: it may ask somebody.
const PATIENCE: Duration = Duration::from_secs(60);

/// The region where none is set: servers of one's own take any.
const DEFAULT_REGION: &str = "us-east-1";

/// What is asked, and by whom.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) region: String,
    /// The address of a server that is not Amazon's.
    pub(super) endpoint: Option<String>,
    pub(super) provider: Provider,
}

/// What requests are signed with.
pub(super) struct Held {
    /// `None` for requests without a signature.
    pub(super) credentials: Option<Credentials>,
    /// Why there are none, then.
    pub(super) why_none: String,
    /// When they expire, where that is known.
    pub(super) expires: Option<SystemTime>,
    /// When others may be asked for again, as some were refused without a reason, and how long that is after the last time.
    pub(super) renewed: Option<Instant>,
    pub(super) pause: Duration,
}

/// Where credentials come from.
pub(super) enum Provider {
    /// Nowhere, for this reason: requests are not signed.
    Nobody(String),
    Fixed(Credentials),
    /// What this command prints.
    Process(String),
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nobody(_) => "Nobody",
            Self::Fixed(_) => "Fixed",
            Self::Process(_) => "Process",
        })
    }
}

impl Settings {
    /// Those of this user.
    ///
    /// # Errors
    /// When a file cannot be read, or the profile does not exist.
    pub(super) fn of_this_user(address: &S3Address) -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let file = |name: &str, default: &str| -> anyhow::Result<Profiles> {
            let path = match (variable(name), variable("HOME")) {
                (Some(path), _) => PathBuf::from(path),
                (None, Some(home)) => PathBuf::from(home).join(default),
                (None, None) => return Ok(Profiles::default()),
            };
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Profiles::read(&text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Ok(Profiles::default())
                }
                Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
            }
        };
        let credentials = file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")?;
        let config = file("AWS_CONFIG_FILE", ".aws/config")?;
        Self::choose(address, variable, &credentials, &config)
    }

    /// What counts: the address first, then the environment, then the files. A profile that the address names goes before the
    /// credentials of the environment.
    fn choose(
        address: &S3Address,
        variable: impl Fn(&str) -> Option<String>,
        credentials: &Profiles,
        config: &Profiles,
    ) -> anyhow::Result<Self> {
        let named = address.profile.clone().or_else(|| variable("AWS_PROFILE"));
        let profile = named.clone().unwrap_or_else(|| "default".to_owned());
        if let Some(named) = &named {
            let exists = credentials.has(named) || config.has(named);
            ensure!(
                exists,
                "the profile '{named}' is in neither ~/.aws/config nor ~/.aws/credentials"
            );
        }
        let of_file = |key: &str| {
            credentials.get(&profile, key).or_else(|| config.get(&profile, key)).map(str::to_owned)
        };
        let of_variable = |names: &[&str]| names.iter().find_map(|name| variable(name));
        let region =
            address.region.clone().or_else(|| of_variable(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
        let region = region.or_else(|| of_file("region"));
        let endpoint = address.endpoint.clone();
        let endpoint =
            endpoint.or_else(|| of_variable(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]));
        let endpoint = endpoint.or_else(|| of_file("endpoint_url"));
        let of_environment = match (variable(KEY), variable(SECRET)) {
            _ if address.profile.is_some() => None,
            (Some(key), Some(secret)) => Some(with_token(key, secret, variable(TOKEN))),
            (Some(_), None) => bail!("{KEY} is set, but {SECRET} is not"),
            (None, Some(_)) => bail!("{SECRET} is set, but {KEY} is not"),
            (None, None) => None,
        };
        let of_files = || {
            let (key, secret) = (of_file("aws_access_key_id")?, of_file("aws_secret_access_key")?);
            Some(with_token(key, secret, of_file("aws_session_token")))
        };
        let provider = match of_environment.or_else(of_files) {
            Some(fixed) => Provider::Fixed(fixed),
            None => match of_file("credential_process") {
                Some(command) => Provider::Process(command),
                None => Provider::Nobody(why_none(&profile, |key| of_file(key).is_some())),
            },
        };
        let region = region.unwrap_or_else(|| DEFAULT_REGION.to_owned());
        Ok(Self { region, endpoint, provider })
    }
}

/// Why a profile has no credentials, with the keys that it has.
fn why_none(profile: &str, has: impl Fn(&str) -> bool) -> String {
    match UNSUPPORTED.iter().find(|key| has(key)) {
        None => format!("there are no credentials in {KEY}, a profile, or its credential_process"),
        Some(key) => format!(
            "the profile '{profile}' has '{key}', which pipeline does not read: name a profile with \
             credential_process = aws configure export-credentials --profile {profile} --format process"
        ),
    }
}

fn with_token(key: String, secret: String, token: Option<String>) -> Credentials {
    match token {
        Some(token) => Credentials::new_with_token(key, secret, token),
        None => Credentials::new(key, secret),
    }
}

impl Provider {
    /// The credentials now.
    ///
    /// # Errors
    /// When a program does not print them, in time. What it prints is not shown.
    pub(super) fn get(&self) -> anyhow::Result<Held> {
        let (credentials, why_none) = match self {
            Self::Nobody(why) => (None, why.clone()),
            Self::Fixed(credentials) => (Some(credentials.clone()), String::new()),
            Self::Process(command) => return of_process(command, PATIENCE),
        };
        Ok(Held { credentials, why_none, expires: None, renewed: None, pause: Duration::ZERO })
    }
}

/// What a `credential_process` prints: version 1 of its format.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    session_token: Option<String>,
    #[serde(default)]
    expiration: Option<String>,
}

fn of_process(command: &str, patience: Duration) -> anyhow::Result<Held> {
    let mut shell = Command::new("sh");
    // It may ask somebody at the terminal, so it stays in the group of this process.
    shell.arg("-c").arg(command);
    let deadline = Deadline {
        limit: patience,
        is_enough: Some(|status, printed| !status.success() || read_printed(printed).is_ok()),
        ..Deadline::default()
    };
    let Output { status, stdout, .. } = deadline
        .run(shell)
        .context("the credential_process of the profile cannot be started")?
        .with_context(|| {
            format!(
                "the credential_process of the profile did not end within {} s",
                patience.as_secs()
            )
        })?;
    ensure!(status.success(), "the credential_process of the profile failed ({status})");
    read_printed(&stdout)
}

fn read_printed(printed: &[u8]) -> anyhow::Result<Held> {
    let printed: Printed = serde_json::from_slice(printed).map_err(|_| {
        anyhow!("the credential_process of the profile does not print credentials as JSON")
    })?;
    ensure!(
        printed.version == 1,
        "the credential_process of the profile prints another version than 1"
    );
    let Printed { access_key_id, secret_access_key, session_token, expiration, .. } = printed;
    let token = session_token.filter(|token| !token.is_empty());
    Ok(Held {
        credentials: Some(with_token(access_key_id, secret_access_key, token)),
        why_none: String::new(),
        expires: expiration.as_deref().and_then(moment),
        renewed: None,
        pause: Duration::ZERO,
    })
}

/// Reads a time as in RFC 3339, without fractions of a second: `2026-11-27T21:00:00Z`, `2026-11-27T22:00:00.5+01:00`.
fn moment(text: &str) -> Option<SystemTime> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let is_punctuated = [(4, '-'), (7, '-'), (10, 'T'), (13, ':'), (16, ':')]
        .iter()
        .all(|&(at, sign)| text.get(at..=at).is_some_and(|found| found.starts_with(sign)));
    if !is_punctuated {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let seconds = number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    let zone =
        text.get(19..)?.trim_start_matches(|letter: char| letter == '.' || letter.is_ascii_digit());
    let ahead = match zone.split_at_checked(1)? {
        ("Z", "") => 0,
        (sign @ ("+" | "-"), offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let number = |text: &str| text.parse::<u16>().map(i64::from).ok();
            let minutes = number(hours)? * 60 + number(minutes)?;
            if sign == "+" { minutes * 60 } else { -minutes * 60 }
        }
        _ => return None,
    };
    // Days since 1970 in the Gregorian calendar, of years that begin in March.
    let years = if month > 2 { year } else { year - 1 };
    let days = 365 * (years - 1970) + (years / 4 - 492) - (years / 100 - 19)
        + (years / 400 - 4)
        + (153 * ((month + 9) % 12) + 2) / 5
        + 59
        + day
        - 1;
    let since = u64::try_from(days * 86400 + seconds - ahead).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since))
}

/// Whether a file has a profile, or a program has printed credentials. For fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_for_s3(text: &[u8]) -> bool {
    let profiles = Profiles::read(&String::from_utf8_lossy(text));
    let has_profile = profiles.get("default", "region").is_some() || profiles.has("lab");
    read_printed(text).is_ok() || has_profile
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(address: &str, set: &[(&str, &str)]) -> Result<String, String> {
        let credentials = Profiles::read(
            "[default]\naws_access_key_id = of-default\naws_secret_access_key = s3cret\n\
             [lab]\naws_access_key_id = of-lab\naws_secret_access_key = s3cret\naws_session_token = t0ken\n",
        );
        let config = Profiles::read(
            "[default]\nregion = of-default\n[profile lab]\nendpoint_url = http://lab:9000\n\
             [profile program]\ncredential_process = make-them\n\
             [profile login]\nsso_session = lab\nregion = r\n[profile role]\nrole_arn = arn\nsource_profile = lab\n\
             [profile empty]\noutput = json\n",
        );
        let variable = |name: &str| {
            set.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
        };
        let address = match crate::remote_address::Address::read(address) {
            Ok(crate::remote_address::Address::S3(address)) => address,
            other => panic!("{other:?}"),
        };
        let settings = Settings::choose(&address, variable, &credentials, &config);
        let Settings { region, endpoint, provider } =
            settings.map_err(|error| error.to_string())?;
        let who = match &provider {
            Provider::Fixed(credentials) => {
                format!("{} {}", credentials.key(), credentials.token().unwrap_or("-"))
            }
            Provider::Process(command) => command.clone(),
            Provider::Nobody(why) => format!("nobody, as {why}"),
        };
        assert!(!format!("{provider:?}").contains("s3cret"));
        Ok(format!("{who} at {} in {region}", endpoint.as_deref().unwrap_or("amazon")))
    }

    #[test]
    fn the_address_goes_before_the_environment_and_that_before_the_files() {
        let own = [(KEY, "own"), (SECRET, "s3cret")];
        for (address, set, expected) in [
            ("s3://b", &[][..], "of-default - at amazon in of-default"),
            ("s3://b", &own, "own - at amazon in of-default"),
            (
                "s3://b",
                &[(KEY, "own"), (SECRET, "s3cret"), (TOKEN, "t")],
                "own t at amazon in of-default",
            ),
            ("s3://b", &[("AWS_PROFILE", "lab")], "of-lab t0ken at http://lab:9000 in us-east-1"),
            ("s3://b?profile=lab&region=r", &own, "of-lab t0ken at http://lab:9000 in r"),
            ("s3://b?profile=program", &[], "make-them at amazon in us-east-1"),
            (
                "s3://b",
                &[("AWS_ENDPOINT_URL", "http://e"), ("AWS_REGION", "r")],
                "of-default - at http://e in r",
            ),
            (
                "s3://b?endpoint=https://x",
                &[("AWS_ENDPOINT_URL_S3", "http://e")],
                "of-default - at https://x in of-default",
            ),
        ] {
            assert_eq!(chosen(address, set).as_deref(), Ok(expected), "{address}");
        }
        for (profile, words) in [
            (
                "login",
                "the profile 'login' has 'sso_session', which pipeline does not read: name a",
            ),
            ("role", "= aws configure export-credentials --profile role --format process"),
            ("empty", "there are no credentials in AWS_ACCESS_KEY_ID"),
        ] {
            let chosen = chosen("s3://b", &[("AWS_PROFILE", profile)]).expect("nobody");
            assert!(chosen.starts_with("nobody, as ") && chosen.contains(words), "{chosen}");
        }
        for (address, set, words) in [
            ("s3://b", &[(KEY, "own")][..], "AWS_SECRET_ACCESS_KEY is not"),
            ("s3://b", &[(SECRET, "s3cret")], "AWS_ACCESS_KEY_ID is not"),
            ("s3://b?profile=none", &[], "the profile 'none'"),
        ] {
            let error = chosen(address, set).expect_err(words);
            assert!(error.contains(words) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_program_prints_credentials_and_nothing_of_them_is_shown() {
        let get = |command: &str| {
            of_process(command, Duration::from_secs(10)).map(|found| {
                let found = found.credentials.expect("it prints some");
                (found.key().to_owned(), found.token().map(str::to_owned))
            })
        };
        let good = r#"echo '{"Version": 1, "AccessKeyId": "k", "SecretAccessKey": "s3cret", "SessionToken": "t"}'"#;
        assert_eq!(get(good).expect("credentials"), ("k".to_owned(), Some("t".to_owned())));
        for (command, words) in [
            ("echo s3cret", "does not print credentials"),
            ("echo s3cret; exit 3", "failed (exit status: 3)"),
            (
                r#"echo '{"Version": 2, "AccessKeyId": "k", "SecretAccessKey": "s3cret"}'"#,
                "another version",
            ),
        ] {
            let error = get(command).expect_err(words).to_string();
            assert!(error.contains(words) && !error.contains("s3cret"), "{error}");
        }
        let began = Instant::now();
        let Err(error) = of_process("exec sleep 60", Duration::ZERO) else {
            panic!("nobody waits for it")
        };
        assert!(error.to_string().contains("did not end within"), "{error}");
        // Nor for what it leaves behind.
        get(&format!("sleep 50 & {good}")).expect("credentials");
        let Err(error) = of_process("sleep 50 &", Duration::from_millis(100)) else {
            panic!("it prints nothing")
        };
        assert!(error.to_string().contains("does not print credentials"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    }

    #[test]
    fn a_moment_is_read_as_it_is_written() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2026-11-27T21:34:48Z", Some(1_795_815_288)),
            ("2026-11-27T22:34:48.123456+01:00", Some(1_795_815_288)),
            ("2100-03-01T00:00:00+00:00", Some(4_107_542_400)),
            ("2026-11-27", None),
            ("2026-11-27T21:34:48+999999999999999999:00", None),
            ("2026-11-27T21:34:48", None),
            ("tomorrow at eight or so", None),
        ] {
            let expected = seconds.map(|it| SystemTime::UNIX_EPOCH + Duration::from_secs(it));
            assert_eq!(moment(text), expected, "{text}");
        }
    }
}
