//! What each stage takes of this machine, and what it is handed of it: cores, memory, GPUs.
//!
//! Pure: what there is comes from elsewhere. Does not depend on what runs.

use std::collections::BTreeMap;

use anyhow::ensure;
use pipeline_stages::message::Device;
use pipeline_stages::{Cores, WorkerProgram};

use super::pools::{Depths, GpuNeeds, Needs, Pool, Pools, Taken};
use crate::diagnostic::Mistake;
use crate::format;
use crate::gpus::{self, Gpu, Gpus};
use crate::machine;
use crate::manifest::{Resources, RunLimits, Stage, Takes, WHOLE_GPU, did_you_mean};

/// What a run shares out.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    /// How many stages run at once, where somebody says so.
    jobs: Option<usize>,
    /// The cores of the machine.
    machine: u32,
    /// Those that the run may use.
    cores: u32,
    /// Whether somebody said how many these are.
    is_limited: bool,
    memory: Option<u64>,
    /// How much there is of what the user counts.
    resources: Resources,
    /// The GPUs that the run may use.
    gpus: Gpus,
    /// Whether there are more, or may be where none is to be used.
    has_others: bool,
    /// Those that it may use by what somebody said, if none of them exists.
    wrong: Vec<u32>,
}

impl Share {
    /// What a run may use of a machine with these cores, this memory and these GPUs.
    pub(crate) fn new(
        jobs: Option<usize>,
        limits: &RunLimits,
        (cores, memory, found): (usize, Option<u64>, Gpus),
    ) -> Self {
        let machine = u32::try_from(cores).unwrap_or(u32::MAX).max(1);
        let count = found.all.len();
        let is_allowed = |gpu: &Gpu| match &limits.gpus {
            Some(allowed) => allowed.contains(&gpu.number),
            None => true,
        };
        let mut gpus = found;
        gpus.all.retain(is_allowed);
        // Some of them may be those of another machine; none is a mistake, after which trainings would use the CPU.
        let is_wrong = count > 0 && gpus.all.is_empty();
        let wrong = limits.gpus.clone().filter(|_| is_wrong).unwrap_or_default();
        Self {
            jobs,
            machine,
            cores: limits.cpus.unwrap_or(machine).max(1),
            is_limited: limits.cpus.is_some(),
            memory: limits.memory.or(memory),
            resources: limits.resources.clone(),
            has_others: gpus.all.len() < count || limits.gpus.as_ref().is_some_and(Vec::is_empty),
            wrong,
            gpus,
        }
    }

    /// What a run may use of this machine, which has these GPUs.
    pub(crate) fn of_this_machine(jobs: Option<usize>, limits: &RunLimits, gpus: Gpus) -> Self {
        Self::new(jobs, limits, (machine::cores(), machine::memory(), gpus))
    }

    /// What is wrong with the GPUs that the run may use.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.wrong.is_empty(),
            "a run may use the GPUs {} only, and none of them exists: see --gpus, PIPELINE_GPUS and 'gpus' of [execution]",
            self.wrong.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
        );
        Ok(())
    }

    /// Whether a stage may use a GPU, where there is one.
    pub(crate) fn may_use_gpus(stage: &Stage) -> bool {
        let declared = stage.execution.takes.gpus;
        let is_for_gpus = stage.stage.info().worker == WorkerProgram::Learn
            && stage.execution.execution.device != Device::Cpu;
        declared != Some(0) && (declared.is_some() || is_for_gpus)
    }

    /// How much there is of everything.
    pub(crate) fn depths(&self) -> Depths {
        let cores = u64::from(self.cores);
        let jobs = self.jobs.map_or(cores, |jobs| jobs as u64);
        // Whoever asks for more stages at once than there are cores gets them, unless the cores were limited, too.
        let cores = if self.is_limited { cores } else { cores.max(jobs) };
        let mut depths = Depths::from([(Pool::Jobs, jobs), (Pool::Cores, cores)]);
        depths.extend(self.memory.map(|memory| (Pool::Memory, memory)));
        depths.extend(self.gpus.all.iter().map(|gpu| (Pool::Gpu(gpu.number), WHOLE_GPU.into())));
        let counted = (0..).zip(self.resources.values());
        depths.extend(counted.map(|(number, most)| (Pool::Resource(number), (*most).into())));
        depths
    }

    /// Whether several stages can run at once.
    pub(crate) fn runs_several(&self) -> bool {
        self.depths().get(&Pool::Jobs).is_none_or(|jobs| *jobs > 1)
    }

    /// What a stage takes while it runs.
    pub(crate) fn needs(&self, stage: &Stage) -> Needs {
        let Takes { cpus, memory, .. } = stage.execution.takes;
        let gpus = self.gpu_needs(stage);
        let cores = cpus.unwrap_or_else(|| match stage.stage.cores() {
            Cores::None => 0,
            Cores::One => 1,
            Cores::Many => stage.execution.execution.threads.unwrap_or(self.threads(gpus)),
        });
        let resources = self.resources(stage);
        Needs { cores, memory: memory.unwrap_or(0), gpus, resources, ..Needs::default() }
    }

    /// What a stage takes of what the user counts.
    pub(super) fn resources(&self, stage: &Stage) -> Vec<(u32, u32)> {
        let takes = stage.execution.takes.resources.iter();
        let takes = takes.filter_map(|(name, amount)| {
            let place = self.resources.keys().position(|other| other == name)?;
            Some((u32::try_from(place).ok()?, *amount))
        });
        takes.collect()
    }

    /// What the user counts by this number: its name, and how much there is.
    pub(super) fn resource(&self, number: u32) -> Option<(&str, u32)> {
        let (name, there_is) = self.resources.iter().nth(usize::try_from(number).ok()?)?;
        Some((name, *there_is))
    }

    /// The threads of a stage that can use many and does not say how many. This depends on what the run may use, and not on
    /// what else runs: sums of another number of threads have other last bits.
    fn threads(&self, gpus: GpuNeeds) -> u32 {
        let all = match self.jobs {
            Some(jobs @ 2..) => self.cores / u32::try_from(jobs).unwrap_or(u32::MAX),
            _ => self.cores,
        };
        // Where GPUs are used, as many trainings run as there are parts of GPUs; a core is left for what does not train.
        let beside = match gpus {
            GpuNeeds::None => return all.max(1),
            GpuNeeds::Part(part) | GpuNeeds::This { part, .. } => part,
            GpuNeeds::Whole(count) => count.saturating_mul(WHOLE_GPU),
        };
        let parts = self.gpus.all.len().max(1) as u64 * u64::from(WHOLE_GPU);
        let own = u64::from(self.cores.saturating_sub(1)) * u64::from(beside) / parts;
        all.min(u32::try_from(own).unwrap_or(u32::MAX)).max(1)
    }

    fn gpu_needs(&self, stage: &Stage) -> GpuNeeds {
        let declared = stage.execution.takes.gpus;
        if !Self::may_use_gpus(stage) {
            return GpuNeeds::None;
        }
        let trains = stage.stage.info().worker == WorkerProgram::Learn;
        let may_be_unseen = trains && self.gpus.all.is_empty() && !self.has_others;
        match (stage.execution.execution.device, declared) {
            (Device::Cpu, _) if trains => GpuNeeds::None,
            // A program that takes several cannot mean a certain one: that is what is said for all stages.
            (Device::Cuda(number), part) if trains || part.is_none_or(|part| part <= WHOLE_GPU) => {
                GpuNeeds::This { number, part: part.unwrap_or(WHOLE_GPU).min(WHOLE_GPU) }
            }
            // Where none was found, the worker knows better whether there is one.
            _ if may_be_unseen => GpuNeeds::None,
            (_, Some(part)) if part < WHOLE_GPU => GpuNeeds::Part(part),
            (_, Some(whole)) => GpuNeeds::Whole(whole / WHOLE_GPU),
            (_, None) if self.gpus.all.is_empty() => GpuNeeds::None,
            (_, None) => GpuNeeds::Whole(1),
        }
    }

    /// What is wrong where a stage needs more than the run may use. Of GPUs, only where these were looked for: otherwise there may be
    /// some although none was seen.
    pub(crate) fn mistake(&self, stage: &Stage) -> Option<Mistake> {
        let knows_gpus = self.has_others || !self.gpus.may_be_unseen;
        let of_gpus = || self.gpu_mistake(stage).filter(|_| knows_gpus);
        self.mistake_without_gpus(stage).or_else(of_gpus)
    }

    fn mistake_without_gpus(&self, stage: &Stage) -> Option<Mistake> {
        let Takes { cpus, memory, .. } = stage.execution.takes;
        let name = stage.name.template();
        let at = |key: &str, title: String, help: String| {
            let place = stage.places.find(&format!("execution.{key}"), None);
            Some(Mistake::at(place, title).help(help))
        };
        if let Some(cpus) = cpus.filter(|cpus| *cpus > self.cores) {
            let title = format!("'{name}' takes {cpus} cores, and a run may use {}", self.cores);
            // `threads` alone are as many cores.
            let key = if stage.places.has("execution.cpus") { "cpus" } else { "threads" };
            return at(key, title, format!("take fewer, or let runs use more: --cpus {cpus}"));
        }
        if let (Some(wanted), Some(there)) = (memory, self.memory)
            && wanted > there
        {
            let title = format!(
                "'{name}' takes {} of memory, and a run may use {}",
                format::bytes(wanted),
                format::bytes(there)
            );
            let enough = format::size_of_at_least(wanted);
            let help = format!("take less, or let runs use more: --memory '{enough}'");
            return at("memory", title, help);
        }
        self.resource_mistake(stage)
    }

    /// The same of what the user counts, wherever the stage runs.
    pub(crate) fn resource_mistake(&self, stage: &Stage) -> Option<Mistake> {
        let name = stage.name.template();
        stage.execution.takes.resources.iter().find_map(|(resource, wanted)| {
            let (title, help) = match self.resources.get(resource) {
                Some(there) if wanted <= there => return None,
                Some(there) => (
                    format!("'{name}' takes {wanted} of '{resource}', and a run may use {there}"),
                    format!("take less, or let runs use more: --resources {resource}={wanted}"),
                ),
                None => {
                    let known = self.resources.keys().map(String::as_str);
                    let hint = did_you_mean(resource, known);
                    let hint = hint.map_or(String::new(), |hint| format!(", {hint}"));
                    (
                        format!("'{name}' takes '{resource}', and nobody says how much of it there is{hint}"),
                        format!("[execution] of the manifest or of your config.toml can: resources = {{ {resource} = {wanted} }}; or --resources {resource}={wanted}"),
                    )
                }
            };
            let place = stage.places.find(&format!("execution.resources.{resource}"), None);
            Some(Mistake::at(place, title).help(help))
        })
    }

    /// The same of GPUs alone.
    fn gpu_mistake(&self, stage: &Stage) -> Option<Mistake> {
        let name = stage.name.template();
        let there = self.gpus.all.len() as u32;
        let (key, wanted) = match self.gpu_needs(stage) {
            GpuNeeds::Whole(1) if there == 0 => ("gpus", "a GPU".to_owned()),
            GpuNeeds::Whole(count) if count > there => ("gpus", format!("{count} GPUs")),
            GpuNeeds::Part(_) if there == 0 => ("gpus", "a part of a GPU".to_owned()),
            // Where none was found, the worker of a training knows better whether there is one.
            GpuNeeds::This { number, .. }
                if (there > 0
                    || self.has_others
                    || stage.stage.info().worker != WorkerProgram::Learn)
                    && !self.gpus.all.iter().any(|gpu| gpu.number == number) =>
            {
                ("device", format!("cuda:{number}"))
            }
            _ => return None,
        };
        let numbers = self.gpus.all.iter().map(|gpu| format!("cuda:{}", gpu.number));
        let (may, help) = match there {
            0 if self.has_others => (
                "none".to_owned(),
                "none is to be used: see 'gpus' of [execution], and --gpus".to_owned(),
            ),
            0 => {
                let help = "no GPU was found; with CUDA_VISIBLE_DEVICES, only what it names counts";
                ("none".to_owned(), help.to_owned())
            }
            1 => ("1 GPU".to_owned(), format!("this is {}", numbers.collect::<String>())),
            several => {
                let numbers: Vec<String> = numbers.collect();
                let last = numbers.last().cloned().unwrap_or_default();
                let first = numbers[..numbers.len() - 1].join(", ");
                (format!("{several} GPUs"), format!("these are {first} and {last}"))
            }
        };
        let place = stage.places.find(&format!("execution.{key}"), None);
        let title = format!("'{name}' takes {wanted}, and a run may use {may}");
        Some(Mistake::at(place, title).help(help))
    }

    /// Writes into a stage what it is handed where nothing runs beside it. Returns its GPUs.
    ///
    /// # Errors
    /// When it takes GPUs that the run may not use.
    pub(crate) fn hand_out_alone(&self, stage: &mut Stage) -> Result<Vec<Gpu>, Box<Mistake>> {
        if let Some(mistake) = self.gpu_mistake(stage) {
            return Err(Box::new(mistake));
        }
        let taken = Pools::new(self.depths()).take(&self.needs(stage));
        Ok(self.hand_out(stage, &taken))
    }

    /// Writes into a stage what it is handed. Returns its GPUs.
    pub(crate) fn hand_out(&self, stage: &mut Stage, taken: &Taken) -> Vec<Gpu> {
        let needs = self.gpu_needs(stage);
        let default = self.threads(needs);
        let trains = stage.stage.info().worker == WorkerProgram::Learn;
        let wants_none = stage.execution.takes.gpus == Some(0);
        set_threads(stage);
        let uses_many = stage.stage.cores() == Cores::Many;
        let execution = &mut stage.execution.execution;
        // Without a number, a worker takes all cores of the machine.
        if uses_many && default != self.machine {
            execution.threads.get_or_insert(default);
        }
        let gpus = self.gpus.all.iter().filter(|gpu| taken.gpus.contains(&gpu.number));
        let gpus: Vec<Gpu> = gpus.filter(|_| needs != GpuNeeds::None).cloned().collect();
        if !gpus.is_empty() {
            let visible: Vec<&str> = gpus.iter().map(|gpu| gpu.visible.as_str()).collect();
            execution.variables = BTreeMap::from([
                (gpus::VISIBLE.to_owned(), visible.join(",")),
                (gpus::ORDER.to_owned(), self.gpus.order.clone()),
            ]);
            // Its worker sees no other.
            if let Device::Cuda(number) = &mut execution.device {
                *number = 0;
            }
        } else if trains
            && (wants_none
                || execution.device == Device::Auto && self.has_others && self.gpus.all.is_empty())
        {
            execution.device = Device::Cpu;
        }
        gpus
    }
}

/// A stage that does not use many cores and does not say how many it takes has one thread: the libraries of a program would use
/// all.
pub(crate) fn set_threads(stage: &mut Stage) {
    if stage.stage.cores() != Cores::Many && stage.execution.takes.cpus.is_none() {
        stage.execution.execution.threads = Some(1);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::gpus::Model;
    use crate::manifest::{self, Manifest};

    const STAGES: &str = r#"
        [experiment]
        name = "test"
        [stages.download]
        kind = "download"
        url = "https://example.org/a"
        sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
        [stages.data]
        kind = "dataset"
        format = "image-folder"
        path = "data"
        size = 32
        [stages.digits]
        kind = "dataset"
        format = "idx"
        path = "digits"
        [stages.split]
        kind = "split"
        data = "data"
        holdout = 1
        [stages.plot]
        kind = "command"
        run = ["plot"]
        execution = { PLOT }
        [stages.simclr]
        kind = "pretrain-simclr"
        data = "data"
        execution = { SIMCLR }
    "#;

    fn manifest(simclr: &str, plot: &str) -> Manifest {
        let text = STAGES.replace("SIMCLR", simclr).replace("PLOT", plot);
        manifest::parse(Path::new("test.toml"), &text, &[]).expect("a manifest").0
    }

    fn own((name, amount): (&str, u32)) -> (String, u32) {
        (name.to_owned(), amount)
    }

    fn stage<'m>(manifest: &'m Manifest, name: &str) -> &'m Stage {
        manifest.stage(&name.parse().expect("a name")).expect("a stage")
    }

    fn share(jobs: Option<usize>, cpus: Option<u32>, gpus: u32, allowed: Option<&[u32]>) -> Share {
        let gpu =
            |number: u32| Gpu { number, visible: format!("GPU-{number}"), model: Model::default() };
        let (all, order) = ((0..gpus).map(gpu).collect(), "PCI_BUS_ID".to_owned());
        let found = Gpus { all, order, may_be_unseen: false };
        let limits = RunLimits { cpus, gpus: allowed.map(<[u32]>::to_vec), ..RunLimits::default() };
        Share::new(jobs, &limits, (8, Some(1000), found))
    }

    #[test]
    fn cores_of_each_stage() {
        let manifest = manifest("", "");
        let cores = |share: &Share| {
            ["download", "data", "digits", "split", "plot", "simclr"]
                .map(|name| share.needs(stage(&manifest, name)).cores)
        };
        assert_eq!(cores(&share(None, None, 0, None)), [0, 8, 1, 1, 1, 8]);
        assert_eq!(cores(&share(None, Some(4), 0, None)), [0, 4, 1, 1, 1, 4]);
        assert_eq!(cores(&share(Some(1), None, 0, None)), [0, 8, 1, 1, 1, 8]);
        assert_eq!(cores(&share(Some(3), None, 0, None)), [0, 2, 1, 1, 1, 2]);
        assert_eq!(cores(&share(Some(99), None, 0, None)), [0, 1, 1, 1, 1, 1]);
        // Beside a GPU: a core is left for others, whatever is free.
        assert_eq!(cores(&share(None, None, 1, None)), [0, 8, 1, 1, 1, 7]);
        assert_eq!(cores(&share(None, None, 2, None)), [0, 8, 1, 1, 1, 3]);
        assert_eq!(cores(&share(None, Some(1), 2, None)), [0, 1, 1, 1, 1, 1]);
        assert_eq!(cores(&share(Some(4), None, 2, None)), [0, 2, 1, 1, 1, 2]);
    }

    #[test]
    fn more_jobs_than_cores_are_what_somebody_wants_unless_cores_are_limited() {
        let depths = |jobs, cpus| {
            let depths = share(jobs, cpus, 0, None).depths();
            (depths[&Pool::Jobs], depths[&Pool::Cores])
        };
        assert_eq!(depths(None, None), (8, 8));
        assert_eq!(depths(Some(3), None), (3, 8));
        assert_eq!(depths(Some(20), None), (20, 20));
        assert_eq!(depths(Some(20), Some(4)), (20, 4));
        assert_eq!(depths(None, Some(4)), (4, 4));
    }

    /// What a training needs, and what it is handed: its threads, its device and its GPUs.
    fn training(execution: &str, share: &Share) -> (Needs, Option<u32>, Device, String) {
        let manifest = manifest(execution, "");
        let mut stage = stage(&manifest, "simclr").clone();
        let needs = share.needs(&stage);
        let mut pools = Pools::new(share.depths());
        share.hand_out(&mut stage, &pools.take(&needs));
        let execution = stage.execution.execution;
        let visible = execution.variables.get(gpus::VISIBLE).cloned().unwrap_or_default();
        (needs, execution.threads, execution.device, visible)
    }

    #[test]
    fn what_a_training_is_handed() {
        let none = share(None, None, 0, None);
        let two = share(None, None, 2, None);
        let second = share(None, None, 2, Some(&[1]));
        let hidden = share(None, None, 2, Some(&[]));
        let nothing = share(None, None, 0, Some(&[]));
        let (auto, cpu, first) = (Device::Auto, Device::Cpu, Device::Cuda(0));
        let part = |part| GpuNeeds::Part(part);
        let this = |number, part| GpuNeeds::This { number, part };
        let whole = GpuNeeds::Whole(1);
        for (execution, share, cores, gpus, threads, device, visible) in [
            // All cores of the machine are what a worker takes by itself.
            ("", &none, 8, GpuNeeds::None, None, auto, ""),
            ("threads = 3", &none, 3, GpuNeeds::None, Some(3), auto, ""),
            ("cpus = 2", &none, 2, GpuNeeds::None, Some(2), auto, ""),
            ("cpus = 4, threads = 2", &none, 4, GpuNeeds::None, Some(2), auto, ""),
            ("device = 'cuda:1'", &none, 7, this(1, 1000), Some(7), Device::Cuda(1), ""),
            ("", &two, 3, whole, Some(3), auto, "GPU-0"),
            ("gpus = 0.5", &two, 1, part(500), Some(1), auto, "GPU-0"),
            ("gpus = 1, cpus = 6", &two, 6, whole, Some(6), auto, "GPU-0"),
            ("device = 'cuda:1'", &two, 3, this(1, 1000), Some(3), first, "GPU-1"),
            ("device = 'cuda:1', gpus = 0.25", &two, 1, this(1, 250), Some(1), first, "GPU-1"),
            ("gpus = 0", &two, 8, GpuNeeds::None, None, cpu, ""),
            ("gpus = 0, device = 'cuda:1'", &two, 8, GpuNeeds::None, None, cpu, ""),
            // The worker may find one.
            ("gpus = 1", &none, 8, GpuNeeds::None, None, auto, ""),
            ("gpus = 0.5", &none, 8, GpuNeeds::None, None, auto, ""),
            ("gpus = 0", &none, 8, GpuNeeds::None, None, cpu, ""),
            ("", &nothing, 8, GpuNeeds::None, None, cpu, ""),
            ("device = 'cpu'", &two, 8, GpuNeeds::None, None, cpu, ""),
            ("device = 'cpu', gpus = 1", &two, 8, GpuNeeds::None, None, cpu, ""),
            ("", &second, 7, whole, Some(7), auto, "GPU-1"),
            ("", &hidden, 8, GpuNeeds::None, None, cpu, ""),
        ] {
            let (needs, handed_threads, handed_device, handed) = training(execution, share);
            assert_eq!((needs.cores, needs.gpus), (cores, gpus), "{execution}");
            let found = (handed_threads, handed_device, handed.as_str());
            assert_eq!(found, (threads, device, visible), "{execution}");
        }
    }

    #[test]
    fn a_program_has_its_cores_and_sees_its_gpus() {
        let share = share(None, None, 3, Some(&[0, 2]));
        for (execution, threads, visible) in [
            ("", 1, None),
            ("cpus = 5", 5, None),
            ("cpus = 4, threads = 2", 2, None),
            ("threads = 4", 4, None),
            ("gpus = 2", 1, Some("GPU-0,GPU-2")),
            ("gpus = 1, device = 'cuda:2'", 1, Some("GPU-2")),
            ("gpus = 0.5, device = 'cuda:2'", 1, Some("GPU-2")),
            ("device = 'cuda:2'", 1, None),
            ("gpus = 0", 1, None),
        ] {
            let manifest = manifest("", execution);
            let mut stage = stage(&manifest, "plot").clone();
            let needs = share.needs(&stage);
            let mut pools = Pools::new(share.depths());
            share.hand_out(&mut stage, &pools.take(&needs));
            let handed = stage.execution.execution;
            assert_eq!(handed.threads, Some(threads), "{execution}");
            let found = handed.variables.get(gpus::VISIBLE).map(String::as_str);
            assert_eq!(found, visible, "{execution}");
        }
    }

    #[test]
    fn only_what_was_declared_can_be_too_much() {
        let mistake = |share: &Share, simclr: &str| {
            let manifest = manifest(simclr, "");
            share.mistake(stage(&manifest, "simclr")).map(|mistake| mistake.title().to_owned())
        };
        let (none, two) = (share(None, Some(4), 0, None), share(None, None, 2, Some(&[1])));
        let nothing = share(None, None, 0, Some(&[]));
        for right in
            ["", "threads = 64", "cpus = 4", "memory = '1 kB'", "device = 'cuda:3'", "gpus = 0"]
        {
            assert_eq!(mistake(&none, right), None, "{right}");
        }
        // Of a GPU that was not found, the worker may know more; of those of a program, nobody does.
        let of_program = |execution: &str| {
            let manifest = manifest("", execution);
            none.mistake(stage(&manifest, "plot")).map(|mistake| mistake.title().to_owned())
        };
        for declared in ["gpus = 1", "gpus = 0.5", "gpus = 1, device = 'cuda:0'"] {
            assert_eq!(mistake(&none, declared), None, "{declared}");
            assert!(of_program(declared).is_some_and(|title| title.contains("plot")), "{declared}");
        }
        for right in ["", "gpus = 1", "device = 'cuda:1'", "device = 'cpu', gpus = 1", "gpus = 0.1"]
        {
            assert_eq!(mistake(&two, right), None, "{right}");
        }
        // What the user counts, by the places of the names in their order.
        let limits =
            RunLimits { resources: [("a", 2), ("c", 1)].map(own).into(), ..RunLimits::default() };
        let counts = Share::new(None, &limits, (2, None, Gpus::default()));
        for (takes, needs, wrong) in [
            ("", vec![], None),
            ("resources = { a = 2, c = 1 }", vec![(0, 2), (1, 1)], None),
            ("resources = { c = 1 }", vec![(1, 1)], None),
            ("resources = { a = 3 }", vec![(0, 3)], Some("takes 3 of 'a', and a run may use 2")),
            ("resources = { b = 1 }", vec![], Some("takes 'b', and nobody says how much")),
        ] {
            let manifest = manifest("", takes);
            let plot = stage(&manifest, "plot");
            assert_eq!(counts.needs(plot).resources, needs, "{takes}");
            let found = counts.mistake(plot).map(|mistake| mistake.title().to_owned());
            let is_right = found.as_deref().zip(wrong).map(|(found, wrong)| found.contains(wrong));
            assert_eq!(
                (is_right, found.is_some()),
                (wrong.map(|_| true), wrong.is_some()),
                "{takes}"
            );
        }
        for (wrong, share) in [
            ("cpus = 5", &none),
            ("memory = '2 kB'", &none),
            ("gpus = 1", &nothing),
            ("gpus = 0.5", &nothing),
            ("device = 'cuda:0'", &nothing),
            ("device = 'cuda:0'", &two),
        ] {
            assert!(mistake(share, wrong).is_some_and(|title| title.contains("simclr")), "{wrong}");
        }
    }
}
