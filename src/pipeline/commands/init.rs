//! `pipeline init`: a starter manifest, with the small data set that it needs.

#![allow(clippy::disallowed_methods, reason = "it writes outside of the cache")]

use std::borrow::Cow;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};

use super::init_data::ImageFolder;
use super::output::{note, print};
use crate::cli::InitArguments;
use crate::table;

/// What is written: the quickstart, under the paths that its manifest names.
const FILES: [(&str, &[u8]); 3] = [
    ("data/fashion-mnist-6k.zip", include_bytes!("../../../pipelines/data/fashion-mnist-6k.zip")),
    ("data/FASHION-MNIST-LICENSE", include_bytes!("../../../pipelines/data/FASHION-MNIST-LICENSE")),
    // Last: where it exists, the rest does too.
    (MANIFEST, include_bytes!("../../../pipelines/quickstart.toml")),
];
const MANIFEST: &str = "pipeline.toml";
/// What the comments of the quickstart call its file.
const QUICKSTART: &str = "pipelines/quickstart.toml";

/// The content of one of [`FILES`]. The comments of the manifest are about the file that is written, and the schema of this
/// project is not beside it.
fn content(name: &str, content: &'static [u8]) -> Cow<'static, [u8]> {
    match std::str::from_utf8(content) {
        Ok(text) if name == MANIFEST => {
            let own = text.split_once("\n\n").filter(|(first, _)| first.starts_with("#:schema "));
            let text = own.map_or(text, |(_, rest)| rest);
            text.replace(QUICKSTART, MANIFEST).into_bytes().into()
        }
        _ => content.into(),
    }
}

/// What is at the place of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Nothing,
    /// The file.
    Same,
    /// Its beginning: something was interrupted while it was written.
    Part,
}

/// # Errors
/// When there is something else, or it cannot be read.
fn look(path: &Path, content: &[u8]) -> anyhow::Result<Existing> {
    let shown = path.display();
    // Of the file and the folders above it: what leads nowhere looks like nothing, but cannot be written through.
    if let Some(link) = path.ancestors().find(|above| above.is_symlink() && !above.exists()) {
        bail!("{} is a link to something that does not exist: move it away", link.display());
    }
    let found = match fs::metadata(path) {
        // Nothing larger is read.
        Ok(metadata) if metadata.is_file() && metadata.len() <= content.len() as u64 => {
            fs::read(path).with_context(|| format!("cannot read {shown}"))?
        }
        Ok(_) => {
            bail!("{shown} already exists, and is not the file that this writes: move it away")
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Existing::Nothing),
        Err(error) => bail!("cannot read {shown}: {error}"),
    };
    ensure!(
        content.starts_with(&found),
        "{shown} already exists, and is not the file that this writes: move it away"
    );
    Ok(if found.len() == content.len() { Existing::Same } else { Existing::Part })
}

/// Writes a file, which appears when it is whole.
fn write(path: &Path, content: &[u8], replaces: bool) -> anyhow::Result<()> {
    let parent = path.parent().context("a file has a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let written = || -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::Permissions::from_mode(0o666);
        let mut file =
            tempfile::Builder::new().prefix(".init.").permissions(mode).tempfile_in(parent)?;
        file.write_all(content)?;
        let kept = if replaces { file.persist(path) } else { file.persist_noclobber(path) };
        kept.map(drop).map_err(|error| error.error)
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

pub(crate) fn run(arguments: &InitArguments) -> anyhow::Result<ExitCode> {
    let folder = &arguments.folder;
    let manifest = folder.join(MANIFEST);
    if manifest.symlink_metadata().is_ok() {
        bail!(
            "{} already exists; `pipeline init FOLDER` writes to another folder",
            manifest.display()
        );
    }
    if let Some(data) = &arguments.data {
        return for_images(data, folder, &manifest);
    }
    let files = FILES.map(|(name, bytes)| (folder.join(name), content(name, bytes)));
    // All of them before the first one is written.
    let found = files.iter().map(|(path, content)| look(path, content));
    let found = found.collect::<anyhow::Result<Vec<_>>>()?;
    for ((path, content), found) in files.iter().zip(&found) {
        match found {
            Existing::Nothing => write(path, content, false)?,
            Existing::Same => {}
            Existing::Part => {
                write(path, content, true)?;
                note(&format!("{} was cut off, and is written again", path.display()));
            }
        }
    }
    let manifest = manifest.display();
    let commands = [
        (format!("pipeline graph {manifest}"), "shows its stages"),
        (format!("pipeline run {manifest}"), "runs them (about two minutes on two cores)"),
        ("pipeline kinds".to_owned(), "lists what stages can do"),
    ];
    let rows = commands.map(|(command, what)| vec![format!("  {command}"), what.to_owned()]);
    let data = folder.join("data");
    let data = data.display();
    let wrote = match found.first() {
        Some(Existing::Same) => {
            format!("wrote {manifest}; the 6,000 images that it trains on are under {data} already")
        }
        _ => format!("wrote {manifest}, and the 6,000 images that it trains on under {data}"),
    };
    print(&format!("{wrote}\n\n{}", table::plain(&rows)))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a manifest for the images in `data`.
fn for_images(data: &Path, folder: &Path, manifest: &Path) -> anyhow::Result<ExitCode> {
    look(manifest, &[])?;
    let images = ImageFolder::look(data, folder)?;
    write(manifest, images.manifest().as_bytes(), false)?;
    let manifest = manifest.display();
    let rows = [
        (format!("pipeline run {manifest}"), "trains with 40 % of the labels drawn again"),
        ("pipeline kinds".to_owned(), "lists what stages can do"),
    ];
    let rows = rows.map(|(command, what)| vec![format!("  {command}"), what.to_owned()]);
    print(&format!("wrote {manifest}, for {}\n\n{}", images.in_words(), table::plain(&rows)))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comments_of_the_manifest_are_about_the_file_that_is_written() {
        let (name, bytes) = FILES[2];
        let manifest = content(name, bytes);
        let text = std::str::from_utf8(&manifest).expect("text");
        assert!(text.contains("\n#     pipeline run pipeline.toml\n"), "{text}");
        assert!(text.starts_with("# ") && !text.contains("schema"), "{text}");
        let written = FILES.map(|(name, _)| name);
        let words =
            text.split(|letter: char| letter.is_whitespace() || "\"`;:,()".contains(letter));
        for word in words.filter(|word| word.ends_with(".toml") || word.ends_with(".zip")) {
            assert!(written.contains(&word), "{word} is not written");
        }
    }

    #[test]
    fn what_is_at_the_place_of_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data/file");
        assert_eq!(look(&path, b"content").expect("nothing"), Existing::Nothing);
        for (content, found) in [
            ("content", Some(Existing::Same)),
            ("con", Some(Existing::Part)),
            ("", Some(Existing::Part)),
            ("mine", None),
            ("content2", None),
        ] {
            write(&path, content.as_bytes(), true).expect("writable");
            assert_eq!(look(&path, b"content").ok(), found, "{content}");
        }
        assert!(write(&path, b"content", false).is_err(), "not over a file");
        assert_eq!(fs::read_dir(folder.path().join("data")).expect("a folder").count(), 1);
        assert!(look(folder.path(), b"content").is_err(), "a folder");
    }
}
