//! What is in `train/<class>/`, `test/<class>/` and `val/<class>/`: listed as torchvision's `ImageFolder` lists it.
//!
//! A class has the images of its folder and of every folder below, with links followed: folder by folder in the order of
//! their whole paths, and by name within a folder. A class without images is an error. Unlike in torchvision, hidden
//! entries and files of file managers are skipped, and outside the cache all that its digest leaves out. A note lists everything else that is not read.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use pipeline_stages::formats::Part;
use pipeline_stages::image_file::ImageFileFormat;
use pipeline_stages::kinds::Dataset;
use pipeline_stages::links::last_link;
use pipeline_stages::text::{csv_field, in_short, no_such_class};
use pipeline_stages::worker::Context;

use super::source::SourceFolders;
use super::work::sample_limit;

/// The file of the artifact that says from which file each sample is.
pub(crate) const FILES: &str = "files.csv";
/// The most names that a message names.
const NAMED: usize = 5;
/// The deepest nesting of folders. A link to a folder above it is found before that.
const DEEPEST: usize = 64;
const ENDINGS: &str = ".jpg, .jpeg, .png and .webp";

/// The images of a data set, and their classes.
pub(super) struct ClassListing {
    /// The folder that `train`, `test` and `val` are in.
    root: PathBuf,
    pub(super) classes: Vec<String>,
    pub(super) train: Vec<LabelledFile>,
    /// Those of the folder `val`, if it exists.
    pub(super) validation: Vec<LabelledFile>,
    pub(super) test: Vec<LabelledFile>,
}

/// An image file and its class.
pub(super) struct LabelledFile {
    pub(super) path: PathBuf,
    pub(super) label: usize,
}

impl ClassListing {
    /// Lists the folders of a stage.
    ///
    /// # Errors
    /// When a folder is missing, cannot be read or is not a class, or a class of `train` has no images.
    pub(super) fn of(
        stage: &Dataset,
        source: &SourceFolders,
        context: &Context,
    ) -> anyhow::Result<Self> {
        let (train_folder, test_folder) = find_parts(source)?;
        let classes = ordered_classes(stage, source, &train_folder)?;
        let train = PartListing::of(source, &train_folder, &classes)?;
        train.refuse_empty_classes(&classes)?;
        let test = PartListing::of(source, &test_folder, &classes)?;
        ensure!(
            test.files.iter().any(|files| !files.is_empty()),
            "{} has no images ({ENDINGS}) in its classes' folders",
            test_folder.display()
        );
        note_classes_without(&test, &classes, context);
        let val_folder = train_folder.with_file_name("val");
        let validation = if val_folder.is_dir() {
            let listing = PartListing::of(source, &val_folder, &classes)?;
            note_classes_without(&listing, &classes, context);
            listing.note_left_out(context);
            listing.limited(usize::MAX)
        } else {
            Vec::new()
        };
        if !validation.is_empty() {
            context.note(format!(
                "{}: {} images, not used for training: a split uses them with from = \"val-folder\"",
                val_folder.display(),
                validation.len()
            ));
        }
        train.note_left_out(context);
        test.note_left_out(context);
        note_other_folders(source, &train_folder, context)?;
        Ok(Self {
            root: train_folder.parent().unwrap_or(Path::new("")).to_owned(),
            classes,
            train: train.limited(sample_limit(stage, Part::Train)),
            validation,
            test: test.limited(sample_limit(stage, Part::Test)),
        })
    }

    /// Writes `files.csv`: from which file each sample is. `index` is its place in its part of the data set, where the
    /// samples of `val` follow on those of `train`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write_files(&self, artifact: &Path) -> anyhow::Result<()> {
        let mut text = "index,split,path,class\n".to_owned();
        let after_train = self.train.len();
        for (split, files, first) in [
            ("train", &self.train, 0),
            ("val", &self.validation, after_train),
            ("test", &self.test, 0),
        ] {
            for (place, file) in files.iter().enumerate() {
                let index = first + place;
                // From a name that is not UTF-8, what cannot be read is replaced.
                let path = file.path.strip_prefix(&self.root).unwrap_or(&file.path);
                let path = path.to_string_lossy();
                let class = self.classes.get(file.label).map_or("", String::as_str);
                let (path, class) = (csv_field(&path), csv_field(class));
                writeln!(text, "{index},{split},{path},{class}")?;
            }
        }
        let path = artifact.join(FILES);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The folders `train` and `test` in the same folder.
fn find_parts(source: &SourceFolders) -> anyhow::Result<(PathBuf, PathBuf)> {
    let both = |folder: &PathBuf| (folder.join("train"), folder.join("test"));
    let mut found = source.folders().iter().map(both).filter(|(train, _)| train.is_dir());
    let Some((train, test)) = found.next() else {
        bail!(
            "the folder 'train' is missing in {}; expected train/<class>/ and test/<class>/",
            source.in_words()
        );
    };
    if let Some((other, _)) = found.next() {
        bail!("which of the two is it: {} or {}?", train.display(), other.display());
    }
    ensure!(
        test.is_dir(),
        "the folder {} is missing: move some images of each class there, as test/<class>/, to evaluate on",
        test.display()
    );
    Ok((train, test))
}

/// The classes in the order of their labels: the folders by name, or as `classes` orders them.
fn ordered_classes(
    stage: &Dataset,
    source: &SourceFolders,
    train: &Path,
) -> anyhow::Result<Vec<String>> {
    let mut folders = Vec::new();
    for folder in source.entries(train)?.into_iter().filter(|entry| entry.is_dir()) {
        folders.push(folder_name(&folder)?);
    }
    ensure!(!folders.is_empty(), "{} has no folders: expected one for each class", train.display());
    let Some(given) = &stage.classes else { return Ok(folders) };
    for name in given {
        ensure!(folders.contains(name), "'classes': {}", no_such_class(name, &folders));
    }
    for folder in &folders {
        ensure!(
            given.contains(folder),
            "the folder '{folder}' of {} is missing in 'classes'",
            train.display()
        );
    }
    Ok(given.clone())
}

fn folder_name(folder: &Path) -> anyhow::Result<String> {
    let name = folder.file_name().and_then(|name| name.to_str());
    Ok(name
        .with_context(|| format!("the name of the folder {} is not UTF-8", folder.display()))?
        .to_owned())
}

/// The content of the folder of a part.
struct PartListing {
    folder: PathBuf,
    /// The images of each class.
    files: Vec<Vec<PathBuf>>,
    /// Files of other formats in the folders of classes, and all files next to these folders.
    left_out: Vec<PathBuf>,
}

impl PartListing {
    fn of(source: &SourceFolders, folder: &Path, classes: &[String]) -> anyhow::Result<Self> {
        let mut left_out = Vec::new();
        for entry in source.entries(folder)? {
            if !entry.is_dir() {
                left_out.push(entry);
                continue;
            }
            let name = folder_name(&entry)?;
            ensure!(
                classes.contains(&name),
                "{}: {}",
                entry.display(),
                no_such_class(&name, classes)
            );
        }
        let mut files = Vec::new();
        for class in classes {
            let mut folders = Vec::new();
            let class = folder.join(class);
            if class.is_dir() {
                walk(source, &class, &mut Vec::new(), &mut folders)?;
            }
            // Python sorts the whole paths as strings.
            folders.sort_by(|(one, _), (other, _)| {
                one.as_os_str().as_encoded_bytes().cmp(other.as_os_str().as_encoded_bytes())
            });
            let all = folders.into_iter().flat_map(|(_, files)| files);
            let (images, others): (Vec<_>, Vec<_>) = all.partition(|path| has_image_ending(path));
            left_out.extend(others);
            files.push(images);
        }
        Ok(Self { folder: folder.to_owned(), files, left_out })
    }

    fn refuse_empty_classes(&self, classes: &[String]) -> anyhow::Result<()> {
        let empty: Vec<String> = self.without_images(classes).collect();
        ensure!(
            empty.is_empty(),
            "{} of the {} classes in {} have no images ({ENDINGS}), not even in folders below: {}; {}remove their \
             folders, or put images there",
            empty.len(),
            classes.len(),
            self.folder.display(),
            in_short(&empty, NAMED),
            match self.left_out_in_words() {
                Some(words) => format!("{words}; "),
                None => String::new(),
            }
        );
        Ok(())
    }

    fn without_images(&self, classes: &[String]) -> impl Iterator<Item = String> {
        let classes = self.files.iter().zip(classes).filter(|(files, _)| files.is_empty());
        classes.map(|(_, class)| format!("'{class}'"))
    }

    fn left_out_in_words(&self) -> Option<String> {
        let name = |path: &PathBuf| {
            format!("'{}'", path.strip_prefix(&self.folder).unwrap_or(path).display())
        };
        let count = self.left_out.len();
        (count > 0).then(|| {
            let names = in_short(self.left_out.iter().map(name), NAMED);
            let what =
                if count == 1 { "1 other file is" } else { &format!("{count} other files are") };
            format!("{what} not read: {names}")
        })
    }

    fn note_left_out(&self, context: &Context) {
        if let Some(words) = self.left_out_in_words() {
            context.note(format!(
                "{}: {words} (only {ENDINGS} in a class's folder)",
                self.folder.display()
            ));
        }
    }

    /// The images class by class. With a limit, from every class in turn: the first images would otherwise be of
    /// one class.
    fn limited(self, limit: usize) -> Vec<LabelledFile> {
        let mut ranked = Vec::new();
        for (label, files) in self.files.into_iter().enumerate() {
            let files = files.into_iter().map(|path| LabelledFile { path, label });
            ranked.extend(files.enumerate());
        }
        ranked.sort_by_key(|(rank, file)| (*rank, file.label));
        ranked.truncate(limit);
        ranked.sort_by_key(|(rank, file)| (file.label, *rank));
        ranked.into_iter().map(|(_, file)| file).collect()
    }
}

/// Adds a folder and those below, each with its files by name. `above`: the folders that it is in, by device and
/// number.
fn walk(
    source: &SourceFolders,
    folder: &Path,
    above: &mut Vec<(u64, u64)>,
    found: &mut Vec<(PathBuf, Vec<PathBuf>)>,
) -> anyhow::Result<()> {
    let metadata =
        folder.metadata().with_context(|| format!("cannot read {}", folder.display()))?;
    let identity = (metadata.dev(), metadata.ino());
    ensure!(
        !above.contains(&identity),
        "{} is a link to a folder that contains it: remove the link",
        last_link(folder).display()
    );
    ensure!(
        above.len() < DEEPEST,
        "{}: folders are nested more than {DEEPEST} deep",
        folder.display()
    );
    let (folders, files): (Vec<_>, Vec<_>) =
        source.entries(folder)?.into_iter().partition(|entry| entry.is_dir());
    above.push(identity);
    for below in folders {
        walk(source, &below, above, found)?;
    }
    above.pop();
    found.push((folder.to_owned(), files));
    Ok(())
}

fn has_image_ending(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ImageFileFormat::EXTENSIONS.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

fn note_classes_without(part: &PartListing, classes: &[String], context: &Context) {
    let without: Vec<String> = part.without_images(classes).collect();
    if !without.is_empty() {
        context.note(format!(
            "{}: no images of {} of the {} classes: {}",
            part.folder.display(),
            without.len(),
            classes.len(),
            in_short(&without, NAMED)
        ));
    }
}

/// Notes the folders next to `train` that are not read.
fn note_other_folders(
    source: &SourceFolders,
    train: &Path,
    context: &Context,
) -> anyhow::Result<()> {
    let Some(root) = train.parent() else { return Ok(()) };
    let known = ["train", "test", "val"];
    let others: Vec<String> = source
        .entries(root)?
        .iter()
        .filter(|entry| entry.is_dir())
        .filter_map(|entry| Some(entry.file_name()?.to_string_lossy().into_owned()))
        .filter(|name| !known.contains(&name.as_str()))
        .map(|name| format!("'{}'", name.escape_debug()))
        .collect();
    if !others.is_empty() {
        context.note(format!(
            "{}: folders that are not read: {} (only train, test and val)",
            root.display(),
            in_short(&others, NAMED)
        ));
    }
    Ok(())
}
