//! The GPUs of this machine that its processes may use: their numbers, and which ones they are.
//!
//! Loads no library, and starts a program only where the driver does not say it in files. Does not depend on what the GPUs
//! are used for.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::Access;
use rustix::io::Errno;

use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;

/// Where the driver lists its GPUs: a folder each, called by its place on the bus.
const DRIVER: &str = "/proc/driver/nvidia/gpus";
/// Where its GPUs are opened.
const DEVICES: &str = "/dev";
/// The program that lists them.
const PROGRAM: &str = "nvidia-smi";
/// For tests: another folder in place of the driver's.
const DRIVER_VARIABLE: &str = "PIPELINE_GPU_FOLDER";
/// Which GPUs a process may use.
pub(crate) const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
/// In which order CUDA numbers them.
pub(crate) const ORDER: &str = "CUDA_DEVICE_ORDER";
/// The order of `nvidia-smi`: by the place on the bus. By its own choice CUDA begins with what it takes for the fastest.
const BY_BUS: &str = "PCI_BUS_ID";
/// How long `nvidia-smi` may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A GPU that may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gpu {
    /// Its number among those that may be used: that of `cuda:N`.
    pub(crate) number: u32,
    /// What [`VISIBLE`] calls it.
    pub(crate) visible: String,
    /// What it is, where that is certain.
    #[serde(flatten)]
    pub(crate) model: Model,
}

/// What a GPU is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Model {
    /// `NVIDIA H100 80GB HBM3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// `GPU-5d2f4e1c-…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uuid: Option<String>,
}

/// The GPUs that may be used, by what the environment says; and the order that their numbers are in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Gpus {
    pub(crate) all: Vec<Gpu>,
    /// The value for [`ORDER`].
    pub(crate) order: String,
    /// Whether there may be some although none was found: a program that was not started knows.
    pub(crate) may_be_unseen: bool,
}

/// Looks for the GPUs of this machine. None where the driver is not NVIDIA's, or not at work; where it hangs, that is said.
pub(crate) fn find(say: impl FnOnce(String)) -> Gpus {
    found(|| of_program(say))
}

/// The same, without starting a program: as far as files say it.
pub(crate) fn glance() -> Gpus {
    let mut may_be_unseen = false;
    let gpus = found(|| {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        may_be_unseen =
            std::env::split_paths(&folders).any(|folder| folder.join(PROGRAM).is_file());
        None
    });
    Gpus { may_be_unseen, ..gpus }
}

fn found(otherwise: impl FnOnce() -> Option<Vec<Model>>) -> Gpus {
    let text = |name: &str| std::env::var(name).ok();
    let folder = text(DRIVER_VARIABLE).filter(|folder| !folder.is_empty());
    let installed = match &folder {
        Some(folder) => of_driver(Path::new(folder), None),
        None => of_driver(Path::new(DRIVER), Some(Path::new(DEVICES))),
    };
    let installed = installed.or_else(otherwise).unwrap_or_default();
    Gpus::visible(&installed, text(VISIBLE).as_deref(), text(ORDER).as_deref())
}

impl Gpus {
    /// Of these, in the order of the bus, what the variables leave.
    fn visible(installed: &[Model], visible: Option<&str>, order: Option<&str>) -> Self {
        let order = order.filter(|order| !order.is_empty());
        // What a number means. Where CUDA's own order counts, it is only certain among equals. Among others it is left as it is
        // unless somebody said otherwise: their 'cuda:0' would become another GPU.
        let are_equal =
            installed.windows(2).all(|pair| pair[0].name.is_some() && pair[0].name == pair[1].name);
        let order = match (order, visible) {
            (Some(order), _) => order,
            (None, None) if are_equal => BY_BUS,
            (None, _) => "FASTEST_FIRST",
        };
        let is_by_bus = order == BY_BUS;
        let by_number = |number: usize| {
            let model = installed.get(number)?;
            Some(if is_by_bus || are_equal { model.clone() } else { Model::default() })
        };
        let by_name = |name: &str| match name.parse::<usize>() {
            Ok(number) => by_number(number),
            Err(_) => {
                let is_it = |model: &&Model| {
                    model.uuid.as_deref().is_some_and(|uuid| uuid.starts_with(name))
                };
                let found = installed.iter().find(is_it).cloned();
                // The driver may not know the UUIDs yet.
                let may_be =
                    name.starts_with("GPU-") && installed.iter().any(|model| model.uuid.is_none());
                found.or_else(|| (may_be || name.starts_with("MIG-")).then(Model::default))
            }
        };
        let named: Vec<(String, Model)> = match visible {
            None => (0..installed.len())
                .filter_map(|number| Some((number.to_string(), by_number(number)?)))
                .collect(),
            // CUDA does not look beyond the first one that does not exist.
            Some(list) => list
                .split(',')
                .map(str::trim)
                .map_while(|name| {
                    Some((name.to_owned(), by_name(name).filter(|_| !name.is_empty())?))
                })
                .collect(),
        };
        let mut seen = HashSet::new();
        let once = named.into_iter().filter(|(name, _)| seen.insert(name.clone()));
        let numbered = (0..).zip(once);
        let all = numbered.map(|(number, (visible, model))| Gpu { number, visible, model });
        // Without a GPU nothing is to be heard from this about libraries that find one.
        if installed.is_empty() {
            return Self::default();
        }
        Self { all: all.collect(), order: order.to_owned(), may_be_unseen: false }
    }
}

/// What the files of the driver say, of the GPUs that this process may open in the folder of devices. `None` where there are none.
fn of_driver(folder: &Path, devices: Option<&Path>) -> Option<Vec<Model>> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    folders.sort();
    let texts = folders.iter().map(|gpu| std::fs::read_to_string(gpu.join("information")));
    let texts: Vec<String> = texts.flatten().collect();
    // Asked, and not opened: that can take seconds. A control group that keeps devices back is asked, too.
    let access = |text: &String| -> Option<Result<(), Errno>> {
        let device = devices?.join(format!("nvidia{}", value(text, "Device Minor")?));
        Some(rustix::fs::access(device, Access::READ_OK | Access::WRITE_OK))
    };
    // Before anything has used a GPU, there may not be any of these files.
    let has_files = texts.iter().any(|text| !matches!(access(text), Some(Err(Errno::NOENT))));
    let may_open = |text: &&String| match access(text) {
        Some(Err(Errno::NOENT)) => !has_files,
        Some(Err(Errno::PERM | Errno::ACCESS)) => false,
        _ => true,
    };
    Some(texts.iter().filter(may_open).map(|text| information(text)).collect())
}

/// The value of a name in what the driver says of a GPU.
fn value<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(key, _)| key.trim() == name)?;
    // Until a program has used the GPU, the driver may not know it: question marks.
    Some(value.trim()).filter(|value| !value.is_empty() && !value.contains("??"))
}

/// `Model: \t\t NVIDIA H100 80GB HBM3`, `GPU UUID: \t GPU-…`.
fn information(text: &str) -> Model {
    let value = |name: &str| value(text, name);
    Model { name: value("Model").map(str::to_owned), uuid: value("GPU UUID").map(str::to_owned) }
}

/// What `nvidia-smi` says, where there is one.
fn of_program(say: impl FnOnce(String)) -> Option<Vec<Model>> {
    let mut command = Command::new(PROGRAM);
    command.arg("-L").stderr(Stdio::null());
    let deadline = Deadline { limit: PATIENCE, ..Deadline::default() };
    let Some(answer) = deadline.run(command).ok()? else {
        say(format!(
            "{PROGRAM} did not answer within {} s, so no GPU is handed out: look at the driver",
            PATIENCE.as_secs()
        ));
        return None;
    };
    let text = String::from_utf8(answer.stdout).ok()?;
    answer.status.success().then(|| text.lines().filter_map(listed).collect())
}

/// `GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-…)`.
fn listed(line: &str) -> Option<Model> {
    let (_, rest) = line.strip_prefix("GPU ")?.split_once(": ")?;
    let (name, rest) = rest.rsplit_once(" (UUID: ")?;
    let uuid = rest.trim_end().strip_suffix(')')?;
    Some(Model { name: Some(name.to_owned()), uuid: Some(uuid.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, uuid: &str) -> Model {
        Model { name: Some(name.to_owned()), uuid: Some(uuid.to_owned()) }
    }

    /// GPUs, and the two variables.
    type Given<'a> = (&'a [Model], Option<&'a str>, Option<&'a str>);

    /// The names and UUIDs that are known, as `visible=uuid`.
    fn shown(gpus: &Gpus) -> Vec<String> {
        let all = gpus.all.iter().enumerate().map(|(place, gpu)| {
            assert_eq!(place as u32, gpu.number);
            format!("{}={}", gpu.visible, gpu.model.uuid.as_deref().unwrap_or("?"))
        });
        all.collect()
    }

    #[test]
    fn numbers_count_within_what_may_be_used() {
        let equal = [model("H100", "GPU-aa"), model("H100", "GPU-ab"), model("H100", "GPU-b")];
        let mixed = [model("T400", "GPU-aa"), model("H100", "GPU-ab"), model("H100", "GPU-b")];
        let unknown = [model("H100", "GPU-aa"), Model { uuid: None, ..model("H100", "") }];
        let cases: [(Given<'_>, &[&str], &str); 17] = [
            ((&equal, None, None), &["0=GPU-aa", "1=GPU-ab", "2=GPU-b"], BY_BUS),
            // The order that they have without a run.
            ((&mixed, None, None), &["0=?", "1=?", "2=?"], "FASTEST_FIRST"),
            ((&mixed, None, Some(BY_BUS)), &["0=GPU-aa", "1=GPU-ab", "2=GPU-b"], BY_BUS),
            ((&equal, Some("1,1,0"), None), &["1=GPU-ab", "0=GPU-aa"], "FASTEST_FIRST"),
            ((&unknown, Some("GPU-c,GPU-a"), None), &["GPU-c=?", "GPU-a=GPU-aa"], "FASTEST_FIRST"),
            ((&equal, Some("GPU-c"), None), &[], "FASTEST_FIRST"),
            ((&mixed, None, Some("FASTEST_FIRST")), &["0=?", "1=?", "2=?"], "FASTEST_FIRST"),
            ((&equal, Some("2,0"), None), &["2=GPU-b", "0=GPU-aa"], "FASTEST_FIRST"),
            ((&mixed, Some("2, 0"), None), &["2=?", "0=?"], "FASTEST_FIRST"),
            ((&mixed, Some("2"), Some(BY_BUS)), &["2=GPU-b"], BY_BUS),
            (
                (&mixed, Some("GPU-b,GPU-ab"), None),
                &["GPU-b=GPU-b", "GPU-ab=GPU-ab"],
                "FASTEST_FIRST",
            ),
            ((&equal, Some("MIG-77"), None), &["MIG-77=?"], "FASTEST_FIRST"),
            // CUDA stops there, too.
            ((&equal, Some("1,-1,0"), None), &["1=GPU-ab"], "FASTEST_FIRST"),
            ((&equal, Some("0,7,1"), None), &["0=GPU-aa"], "FASTEST_FIRST"),
            ((&equal, Some(""), None), &[], "FASTEST_FIRST"),
            ((&equal, Some("NoDevFiles"), None), &[], "FASTEST_FIRST"),
            // A variable does not make a GPU.
            ((&[], Some("0"), None), &[], ""),
        ];
        for ((installed, visible, order), expected, expected_order) in cases {
            let gpus = Gpus::visible(installed, visible, order);
            assert_eq!(shown(&gpus), expected, "{visible:?} {order:?}");
            assert_eq!(gpus.order, expected_order, "{visible:?} {order:?}");
        }
    }

    #[test]
    fn what_the_driver_and_its_program_say() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |place: &str, text: &str| {
            let gpu = folder.path().join(place);
            std::fs::create_dir(&gpu).expect("a folder");
            std::fs::write(gpu.join("information"), text).expect("writable");
        };
        write(
            "0000:c1:00.0",
            "Model: \t\t NVIDIA T400\nIRQ:   \t\t 0\nGPU UUID: \t GPU-????????\nDevice Minor: \t 1\n",
        );
        write(
            "0000:19:00.0",
            "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 123\nGPU UUID: \t GPU-5d2f4e1c-7\nBus Location: \t 0000:19:00.0\nDevice Minor: \t 0\n",
        );
        let second = Model { name: Some("NVIDIA T400".to_owned()), uuid: None };
        let first = model("NVIDIA H100 80GB HBM3", "GPU-5d2f4e1c-7");
        let both = Some(vec![first.clone(), second.clone()]);
        assert_eq!(of_driver(folder.path(), None), both);
        assert_eq!(of_driver(&folder.path().join("missing"), None), None);
        // Only what may be opened; but all of them where no device was made yet.
        let devices = tempfile::tempdir().expect("a folder");
        assert_eq!(of_driver(folder.path(), Some(devices.path())), both);
        std::fs::write(devices.path().join("nvidia1"), "").expect("writable");
        assert_eq!(of_driver(folder.path(), Some(devices.path())), Some(vec![second]));
        std::fs::write(devices.path().join("nvidia0"), "").expect("writable");
        assert_eq!(of_driver(folder.path(), Some(devices.path())), both);
        let line = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5d2f4e1c-7)";
        assert_eq!(listed(line), Some(first));
        for line in
            ["  MIG 1g.10gb     Device  0: (UUID: MIG-1)", "No devices found.", "", "GPU 0: x"]
        {
            assert_eq!(listed(line), None, "{line}");
        }
    }
}
