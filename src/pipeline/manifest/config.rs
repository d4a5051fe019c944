//! `config.toml`: what a user sets for all manifests. None of it can change a result.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::execution::{RunLimits, StageExecution, read_for_all};
use super::executors::{self, Executors};
use super::hint::nearest;
use super::sharing::{self, Sharing};
use super::values::{Value, known_table, leaves, text, whole_number};
use super::{document, file};
use crate::diagnostic::{Mistake, Mistakes, Origin, Sources};
use crate::format::read_size;
use crate::trust::{PublicKey, Trust};

const KEYS: [&str; 5] = ["cache", "cache-limit", "jobs", "execution", "executors"];

/// The keys of the table `[cache]`. Where only the folder is set, `cache` is that.
const CACHE_KEYS: [&str; 5] = ["folder", "remote", "push", "trust", "keys"];

/// What a user sets for all manifests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Config {
    /// The folder of the cache, absolute.
    pub(crate) cache: Option<PathBuf>,
    /// How many bytes a cache may take that does not have a limit of its own.
    pub(crate) cache_limit: Option<u64>,
    /// How many stages run at once.
    pub(crate) jobs: Option<u16>,
    /// How stages are run, where a manifest does not say.
    pub(crate) execution: StageExecution,
    /// What all stages of a run together may take of the machine, where a manifest does not say.
    pub(crate) limits: RunLimits,
    /// Where stages can run, beside here.
    pub(crate) executors: Executors,
    /// The cache that others share, where a manifest does not name one.
    pub(crate) sharing: Sharing,
    /// Whose results on any remote count. No manifest can change that.
    pub(crate) trust: Trust,
}

impl Config {
    /// Reads the file; nothing is set if it is missing. `home` is what `~` means in it. Reports all mistakes at once.
    pub(crate) fn read(path: &Path, home: &Path) -> Result<Self, Mistakes> {
        let mut sources = Sources::new(path.display().to_string());
        let bytes = match file::read(path) {
            Ok(bytes) => bytes,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(Self::default());
            }
            Err(error) => {
                let title = format!("cannot read {}: {error}", path.display());
                return Err(Mistakes::new(sources, vec![Mistake::general(title)]));
            }
        };
        let content = String::from_utf8_lossy(&bytes);
        let content = content.strip_prefix('\u{feff}').unwrap_or(&content);
        sources.add(Origin::File(path.display().to_string()), content);
        let mut mistakes = Vec::new();
        let config =
            document::parse(content, &[], &[], &mut sources, &mut mistakes).map(|document| {
                let mut found = Vec::new();
                let config = read_root(&document.root, path, home, &mut found);
                mistakes.extend(found.into_iter().filter(|mistake| !document.is_guess(mistake)));
                config
            });
        match config.filter(|_| mistakes.is_empty()) {
            Some(config) => Ok(config),
            None => Err(Mistakes::new(sources, mistakes)),
        }
    }
}

fn read_root(root: &DeTable<'_>, path: &Path, home: &Path, mistakes: &mut Vec<Mistake>) -> Config {
    for key in root.keys().filter(|key| !KEYS.contains(&key.get_ref().as_ref())) {
        let given: &str = key.as_ref();
        let mistake = match nearest(given, KEYS) {
            Some(meant) => Mistake::at(
                key.span(),
                format!("unknown setting '{given}', did you mean '{meant}'?"),
            ),
            None => Mistake::at(key.span(), format!("unknown setting '{given}'"))
                .help("the settings are cache (a folder, or the table [cache]: folder, remote, push, trust, keys), cache-limit, jobs and the tables [execution] and [executors.NAME], as in a manifest"),
        };
        mistakes.push(mistake);
    }
    let beside = path.parent().unwrap_or(Path::new("/"));
    let (cache, sharing, trust) = match root.get("cache") {
        Some(value) if value.get_ref().is_table() => read_cache(value, beside, home, mistakes),
        Some(value) => (
            read_folder("cache", value, beside, home, mistakes),
            Sharing::default(),
            Trust::default(),
        ),
        None => Default::default(),
    };
    let cache_limit = root.get("cache-limit").and_then(|value| {
        let size = text("cache-limit", value)
            .and_then(|size| read_size(size).map_err(|error| Mistake::at(value.span(), error)));
        size.map_err(|mistake| mistakes.push(mistake)).ok()
    });
    let jobs = root.get("jobs").and_then(|value| {
        let jobs = whole_number("jobs", value, 1, u16::MAX.into());
        jobs.map_err(|mistake| mistakes.push(mistake)).ok()?.try_into().ok()
    });
    let none = StageExecution::default();
    let read = root.get("execution").map(|value| read_for_all(value, &none, mistakes));
    let (execution, limits) = read.unwrap_or((none, RunLimits::default()));
    let executors = root.get("executors").map(|value| executors::read(value, mistakes));
    let executors = executors.unwrap_or_default();
    Config { cache, cache_limit, jobs, execution, limits, executors, sharing, trust }
}

/// Reads `[cache]`.
fn read_cache(
    value: &Value<'_>,
    beside: &Path,
    home: &Path,
    mistakes: &mut Vec<Mistake>,
) -> (Option<PathBuf>, Sharing, Trust) {
    let Some(table) = known_table("cache", value, &CACHE_KEYS, mistakes) else {
        return Default::default();
    };
    let folder = table.get("folder");
    let folder = folder.and_then(|value| read_folder("folder", value, beside, home, mistakes));
    (folder, sharing::read_keys(table, mistakes), read_trust(table, mistakes))
}

/// Reads whose results count.
fn read_trust(table: &DeTable<'_>, mistakes: &mut Vec<Mistake>) -> Trust {
    let trusted = table.get("keys").map(|value| read_trusted(value, mistakes));
    let Some(trust) = table.get("trust") else {
        if let Some(keys) = table.get("keys") {
            let title = "'keys' counts only with trust = \"signed\"";
            mistakes.push(
                leaves(keys).into_iter().fold(Mistake::at(keys.span(), title), Mistake::hiding),
            );
        }
        return Trust::Everybody;
    };
    match (trust.get_ref().as_str(), trusted) {
        (Some("everybody"), _) => Trust::Everybody,
        (Some("signed"), Some(keys)) if !keys.is_empty() => Trust::Signed(keys),
        (Some("signed"), _) => {
            let title = "trust = \"signed\" needs the keys that are trusted";
            let help =
                "write keys = [\"ed25519:...\"], with lines that `pipeline key new` has printed";
            mistakes.push(Mistake::at(trust.span(), title).help(help));
            Trust::Signed(Vec::new())
        }
        _ => {
            let title = "'trust' is \"everybody\" or \"signed\"";
            mistakes.push(Mistake::at(trust.span(), title));
            Trust::Signed(Vec::new())
        }
    }
}

/// Reads a list of public keys. A mistake does not repeat one: it may be a private one.
fn read_trusted(value: &Value<'_>, mistakes: &mut Vec<Mistake>) -> Vec<PublicKey> {
    let hiding = |mistake| leaves(value).into_iter().fold(mistake, Mistake::hiding);
    let Some(items) = value.get_ref().as_array() else {
        mistakes.push(hiding(Mistake::at(value.span(), "'keys' is a list of public keys")));
        return Vec::new();
    };
    let keys = items.iter().filter_map(|item| {
        let read = item.get_ref().as_str().ok_or("it is not text").and_then(PublicKey::read);
        let mistake = |reason| {
            hiding(Mistake::at(item.span(), format!("this is not a public key: {reason}")))
        };
        read.map_err(|reason| mistakes.push(mistake(reason))).ok()
    });
    keys.collect()
}

/// Reads a folder, absolute or relative to the settings.
fn read_folder(
    name: &str,
    value: &Value<'_>,
    beside: &Path,
    home: &Path,
    mistakes: &mut Vec<Mistake>,
) -> Option<PathBuf> {
    let folder = text(name, value).map_err(|mistake| mistakes.push(mistake)).ok()?;
    if folder.is_empty() {
        let title = format!("'{name}' is a folder, and cannot be empty");
        mistakes.push(Mistake::at(value.span(), title));
    }
    Some(match folder.strip_prefix('~') {
        Some("") => home.to_owned(),
        Some(rest) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        Some(_) => {
            let title = "only the own home folder can be written as '~'";
            let help = "write the whole path; a folder that is called so is \"./~NAME\"";
            mistakes.push(Mistake::at(value.span(), title).help(help));
            return None;
        }
        None => beside.join(folder),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use pipeline_stages::message::Device;

    use super::super::sharing::PushPolicy;
    use super::*;
    use crate::diagnostic::Colour;

    fn read(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.toml");
        fs::write(&path, text).expect("writable");
        let config = Config::read(&path, Path::new("/home/me"));
        config.map_err(|mistakes| {
            mistakes.render(Colour::Never).replace(&folder.path().display().to_string(), "[folder]")
        })
    }

    #[test]
    fn a_missing_file_sets_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["config.toml", "missing/config.toml"] {
            let config = Config::read(&folder.path().join(name), folder.path());
            assert_eq!(config.expect("no mistake"), Config::default());
        }
    }

    #[test]
    fn what_is_set() {
        let config =
            read("cache = '~/cache'\njobs = 2\n[execution]\ndevice = 'cpu'\n").expect("no mistake");
        assert_eq!(config.cache, Some(PathBuf::from("/home/me/cache")));
        assert_eq!(config.jobs, Some(2));
        assert_eq!(config.execution.execution.device, Device::Cpu);
        assert_eq!(config.execution.execution.threads, None);
        for (cache, folder) in [("~", "/home/me"), ("~/", "/home/me/"), ("~//c", "/home/me/c")] {
            let config = read(&format!("cache = '{cache}'")).expect("no mistake");
            assert_eq!(config.cache, Some(PathBuf::from(folder)), "{cache}");
        }
        let table = "[cache]\nfolder = '/c'\nremote = 'file:///mnt/share'\npush = ['train']\n";
        let config = read(table).expect("no mistake");
        assert_eq!(config.cache, Some(PathBuf::from("/c")));
        let remote = config.sharing.remote.expect("a remote");
        assert_eq!(remote.to_string(), "file:///mnt/share");
        assert_eq!(config.sharing.push, Some(PushPolicy::Some(vec!["train".to_owned()])));
        let limit = read("cache-limit = '1.5 GB'").expect("no mistake").cache_limit;
        assert_eq!(limit, Some(1_500_000_000));
        let named = read("cache = './~c'").expect("no mistake").cache.expect("a folder");
        assert!(named.ends_with("~c"), "{named:?}");
        let beside = read("cache = 'c'").expect("no mistake").cache.expect("a folder");
        assert!(beside.is_absolute() && beside.ends_with("c"), "{beside:?}");
    }

    #[test]
    fn whose_results_count_is_a_word_and_keys() {
        let key = format!("ed25519:{}=", "A".repeat(43));
        let signed = format!("[cache]\ntrust = 'signed'\nkeys = ['{key} ann', '{key}']\n");
        match read(&signed).expect("no mistake").trust {
            Trust::Signed(keys) => assert_eq!((keys.len(), keys[0].to_string()), (2, key.clone())),
            Trust::Everybody => panic!("signed"),
        }
        assert_eq!(
            read("[cache]\ntrust = 'everybody'").expect("no mistake").trust,
            Trust::Everybody
        );
        let private = format!("ed25519-private:{}=", "S".repeat(43));
        for (lines, words) in [
            ("trust = 'signed'".to_owned(), "needs the keys that are trusted"),
            ("trust = 'signed'\nkeys = []".to_owned(), "needs the keys that are trusted"),
            ("trust = 'some'".to_owned(), "is \"everybody\" or \"signed\""),
            (format!("keys = ['{key}']"), "counts only with trust"),
            ("trust = 'signed'\nkeys = 'x'".to_owned(), "is a list of public keys"),
            ("trust = 'signed'\nkeys = [1]".to_owned(), "it is not text"),
            (format!("trust = 'signed'\nkeys = ['{key}', 'ed25519:AAAA']"), "not a public key"),
            (format!("trust = 'signed'\nkeys = ['{private}']"), "it is a private key"),
        ] {
            let mistakes = read(&format!("[cache]\n{lines}\n")).expect_err(&lines);
            assert!(mistakes.contains(words), "{lines}: {mistakes}");
            assert!(!mistakes.contains("SSSS"), "{mistakes}");
        }
    }

    #[test]
    fn executors_are_read_and_their_mistakes_shown() {
        let whole = "[executors.lsf]\nkind = 'command'\nsubmit = 'bsub < {script}'\nstate = 'bjobs'\ncancel = 'bkill {ids}'\nmax-jobs = 3\npath = '/shared/bin'\nsetup = 'module load cuda'\n";
        let executors = read(whole).expect("no mistake").executors;
        let lsf = &executors["lsf"];
        assert_eq!((lsf.max_jobs, lsf.setup.as_deref()), (Some(3), Some("module load cuda")));
        assert_eq!(lsf.path, Some(PathBuf::from("/shared/bin")));
        insta::assert_snapshot!(read("executors = 1").expect_err("a mistake"), @r#"
        error: 'executors' must be a table, but is a whole number
         --> [folder]/config.toml:1:13
          |
        1 | executors = 1
          |             ^
          |
          = help: an executor is a table: [executors.NAME] and, below it, kind = "..."

        error: 1 mistake in [folder]/config.toml; nothing was run
        "#);
        insta::assert_snapshot!(read("[executors]\na = 1\n[executors.local]\nkind = 'comand'\n[executors.b]\n[executors.c]\nkind = 'command'\nsubmit = 'bsub'\nqueue = 'gpu'\n").expect_err("mistakes"), @r#"
        error: 'executors.a' must be a table, but is a whole number
         --> [folder]/config.toml:2:5
          |
        2 | a = 1
          |     ^

        error: "local" cannot be the name of an executor: it means that a stage runs in the process of `pipeline run`
         --> [folder]/config.toml:3:12
          |
        3 | [executors.local]
          |            ^^^^^

        error: unknown kind of executor 'comand', did you mean 'command'?
         --> [folder]/config.toml:4:8
          |
        4 | kind = 'comand'
          |        ^^^^^^^^
          |
          = help: the kinds of executors: slurm and command

        error: the executor 'b' does not have a kind
         --> [folder]/config.toml:5:1
          |
        5 | [executors.b]
          | ^^^^^^^^^^^^^
          |
          = help: the kinds of executors: slurm and command

        error: the executor 'c' does not have 'state'
         --> [folder]/config.toml:6:1
          |
        6 | [executors.c]
          | ^^^^^^^^^^^^^
          |
          = help: an executor of the kind command has submit, state and cancel

        error: the executor 'c' does not have 'cancel'
         --> [folder]/config.toml:6:1
          |
        6 | [executors.c]
          | ^^^^^^^^^^^^^
          |
          = help: an executor of the kind command has submit, state and cancel

        error: 'submit' of the executor 'c' does not use {script}
         --> [folder]/config.toml:8:10
          |
        8 | submit = 'bsub'
          |          ^^^^^^

        error: unknown key 'queue' in 'executors.c'
         --> [folder]/config.toml:9:1
          |
        9 | queue = 'gpu'
          | ^^^^^
          |
          = help: 'executors.c' has kind, max-jobs, path, setup, submit, state and cancel

        error: 8 mistakes in [folder]/config.toml; nothing was run
        "#);
        insta::assert_snapshot!(read(&whole.replace("'/shared/bin'", "'bin'").replace("= 3", "= 0").replace("bkill {ids}", "bkill")).expect_err("mistakes"), @r"
        error: 'cancel' of the executor 'lsf' does not use {ids}
         --> [folder]/config.toml:5:10
          |
        5 | cancel = 'bkill'
          |          ^^^^^^^

        error: 'max-jobs' must be at least 1, but is 0
         --> [folder]/config.toml:6:12
          |
        6 | max-jobs = 0
          |            ^

        error: 'path' must be an absolute path, but is 'bin'
         --> [folder]/config.toml:7:8
          |
        7 | path = 'bin'
          |        ^^^^^

        error: 3 mistakes in [folder]/config.toml; nothing was run
        ");
    }

    #[test]
    fn mistakes_have_places() {
        insta::assert_snapshot!(read("job = 2\ncolours = true\ncache = ''\nexecution = { threads = 0 }\n").expect_err("mistakes"), @r#"
        error: unknown setting 'job', did you mean 'jobs'?
         --> [folder]/config.toml:1:1
          |
        1 | job = 2
          | ^^^

        error: unknown setting 'colours'
         --> [folder]/config.toml:2:1
          |
        2 | colours = true
          | ^^^^^^^
          |
          = help: the settings are cache (a folder, or the table [cache]: folder, remote, push, trust, keys), cache-limit, jobs and the tables [execution] and [executors.NAME], as in a manifest

        error: 'cache' is a folder, and cannot be empty
         --> [folder]/config.toml:3:9
          |
        3 | cache = ''
          |         ^^

        error: 'threads' must be at least 1, but is 0
         --> [folder]/config.toml:4:25
          |
        4 | execution = { threads = 0 }
          |                         ^

        error: 4 mistakes in [folder]/config.toml; nothing was run
        "#);
        for (limit, mistake) in [("'20G'", "may be 20 GB or 20 GiB"), ("'much'", "is not a size")] {
            let mistakes = read(&format!("cache-limit = {limit}")).expect_err("a mistake");
            assert!(mistakes.contains(mistake), "{mistakes}");
            assert!(mistakes.contains("config.toml:1:15"), "{mistakes}");
        }
        for cache in ["~bob", "~bob/x"] {
            let mistakes = read(&format!("cache = '{cache}'")).expect_err("a mistake");
            assert!(mistakes.contains("only the own home folder"), "{mistakes}");
        }
        insta::assert_snapshot!(read("jobs = \n").expect_err("mistakes"), @r#"
        error: this key has no value
         --> [folder]/config.toml:1:8
          |
        1 | jobs =
          |        ^
          |
          = help: write key = 3, key = "text" or key = true

        error: 1 mistake in [folder]/config.toml; nothing was run
        "#);
    }
}
