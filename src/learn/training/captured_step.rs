//! A training step that a GPU repeats on its own: recorded once as a CUDA graph, then replayed for every batch of the same
//! shapes. What takes time otherwise is starting its operations, several hundred, one by one.
//!
//! A replay does the operations of the step that was recorded, at the same addresses. So the batch is copied to where that
//! one was; what a step changes is changed in place; and what differs between steps is in tensors that are set before.
//! The results are those of steps that are not replayed.

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use pipeline_stages::worker::Context;
use tch::{Device, Tensor};

use crate::shim::cuda_graph::{CudaGraph, CudaStream, Room};
use crate::torch_error;

/// The variable of the environment that switches it `on`, or `off`, as it is without.
pub const VARIABLE: &str = "PIPELINE_CUDA_GRAPHS";

/// Steps of the same shapes before one is recorded: libraries choose their kernels in them, and take memory.
const STEPS_BEFORE: u32 = 3;

/// What a step is given: tensors.
pub trait StepInput: Sized {
    /// The same with other tensors in the place of its own, which it goes through in a fixed order.
    ///
    /// # Errors
    /// Those of `change`.
    fn map(
        &self,
        change: &mut dyn FnMut(&Tensor) -> anyhow::Result<Tensor>,
    ) -> anyhow::Result<Self>;
}

impl StepInput for Tensor {
    fn map(
        &self,
        change: &mut dyn FnMut(&Tensor) -> anyhow::Result<Tensor>,
    ) -> anyhow::Result<Self> {
        change(self)
    }
}

/// The steps of one run.
pub struct CapturedStep<'a, B> {
    way: Way<B>,
    counters: Counters,
    /// Where it is said how steps are done.
    context: Option<&'a Context>,
    /// Whether it was said that they differ so far.
    is_said: bool,
}

/// How steps are done.
enum Way<B> {
    /// Operation by operation.
    Eager,
    /// Operation by operation, until this many had the same shapes.
    Counting { gpu: Box<dyn Capture>, seen: BTreeMap<Shapes, u32> },
    /// By replaying one, where the shapes are the same.
    Replayed(Recording<B>),
}

/// The shapes of what a step is given.
type Shapes = Vec<Vec<i64>>;

/// What is done to replay a step.
type Replay = Box<dyn Fn() -> anyhow::Result<()>>;

/// What records work.
trait Capture {
    /// Does work as it is done while it is recorded.
    fn rehearse(&self, work: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<()>;

    /// Records work, without doing it.
    fn record(&self, work: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<Replay>;
}

impl<'a, B: StepInput> CapturedStep<'a, B> {
    /// The steps of a stage's run, before the first one. `state` are the tensors that a step changes, in place; those on the
    /// host count something: a replayed step adds to them what the recorded one has added.
    ///
    /// # Errors
    /// When [`VARIABLE`] has another value.
    pub fn of<'t>(
        context: &'a Context,
        device: Device,
        state: impl IntoIterator<Item = &'t Tensor>,
    ) -> anyhow::Result<Self> {
        let given = context.execution.variables.get(VARIABLE).cloned();
        let is_wanted = is_on(given.or_else(|| std::env::var(VARIABLE).ok()).as_deref())?;
        Ok(Self::new(device, state, is_wanted, Some(context)))
    }

    /// As [`CapturedStep::of`], without a stage.
    pub fn new<'t>(
        device: Device,
        state: impl IntoIterator<Item = &'t Tensor>,
        is_wanted: bool,
        context: Option<&'a Context>,
    ) -> Self {
        let (way, counters) = (Way::Eager, Counters::of(state));
        let mut steps = Self { way, counters, context, is_said: false };
        match device {
            Device::Cuda(number) if is_wanted => match Gpu::new(number) {
                Ok(gpu) => steps.way = Way::Counting { gpu: Box::new(gpu), seen: BTreeMap::new() },
                Err(error) => steps.are_not_replayed(&in_a_line(error)),
            },
            Device::Cuda(_) => steps.are_not_replayed(&format!("{VARIABLE} is not 'on'")),
            _ => {}
        }
        steps
    }

    /// Whether there is a step to replay.
    pub fn is_replayed(&self) -> bool {
        matches!(self.way, Way::Replayed(_))
    }

    /// Does a step on a batch. `compute` does its operations, and reads nothing of them on the host. Whether they can be replayed
    /// for other batches of the same shapes is for the caller to know.
    ///
    /// # Errors
    /// Those of `compute`, or when libtorch fails.
    pub fn run(
        &mut self,
        batch: &B,
        is_replayable: bool,
        mut compute: impl FnMut(&B) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if matches!(self.way, Way::Eager) {
            return compute(batch);
        }
        if !is_replayable {
            if !std::mem::replace(&mut self.is_said, true) {
                let why = "not yet, as they differ from each other or from those of later epochs";
                self.are_not_replayed(why);
            }
            return compute(batch);
        }
        let shapes = shapes(batch)?;
        match &mut self.way {
            Way::Replayed(step) if step.shapes == shapes => step.replay(batch, &mut self.counters),
            Way::Eager | Way::Replayed(_) => compute(batch),
            Way::Counting { gpu, seen } => {
                let seen = seen.entry(shapes).or_default();
                *seen += 1;
                if *seen <= STEPS_BEFORE {
                    return gpu.rehearse(&mut || compute(batch));
                }
                match Recording::of(gpu.as_ref(), batch, &mut self.counters, &mut compute) {
                    Ok(step) => {
                        self.way = Way::Replayed(step);
                        self.say("steps are replayed as a CUDA graph");
                        Ok(())
                    }
                    Err(error) => {
                        self.way = Way::Eager;
                        self.are_not_replayed(&in_a_line(error));
                        if let Some(context) = self.context {
                            context.note("a step could not be recorded: the log says why");
                        }
                        compute(batch)
                    }
                }
            }
        }
    }

    fn are_not_replayed(&self, why: &str) {
        self.say(&format!("steps are not replayed as a CUDA graph: {why}"));
    }

    fn say(&self, text: &str) {
        if let Some(context) = self.context {
            context.log(text);
        }
    }
}

/// Whether the variable says so.
fn is_on(value: Option<&str>) -> anyhow::Result<bool> {
    match value {
        None | Some("" | "off") => Ok(false),
        Some("on") => Ok(true),
        Some(other) => bail!("{VARIABLE} is '{other}': set it to 'on' or 'off'"),
    }
}

/// What libtorch says first. It goes on about its own code.
fn in_a_line(error: anyhow::Error) -> String {
    let text = format!("{:#}", torch_error::readable(error));
    text.lines().next().unwrap_or_default().to_owned()
}

/// A step that was recorded.
struct Recording<B> {
    again: Replay,
    shapes: Shapes,
    /// The batch that it was recorded with; kept for its places.
    batch: B,
    /// What it added to the counters.
    counted: Vec<i64>,
}

impl<B: StepInput> Recording<B> {
    fn of(
        gpu: &dyn Capture,
        batch: &B,
        counters: &mut Counters,
        compute: &mut dyn FnMut(&B) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        // The same layout, too.
        let copied = batch.map(&mut |tensor| {
            let mut copy = tensor.f_empty_like()?;
            copy.f_copy_(tensor)?;
            Ok(copy)
        })?;
        let before = counters.read()?;
        // Starting it for the first time takes memory, too. What cannot be started has done nothing.
        let recorded = gpu.record(&mut || compute(&copied)).and_then(|again| {
            again()?;
            Ok(again)
        });
        let after = counters.read()?;
        match recorded {
            Ok(again) => {
                let counted = before.iter().zip(after).map(|(before, after)| after - before);
                let counted = counted.collect();
                Ok(Self { again, shapes: shapes(&copied)?, batch: copied, counted })
            }
            Err(error) => {
                // Counted, and not done.
                counters.set(&before)?;
                Err(error)
            }
        }
    }

    fn replay(&self, batch: &B, counters: &mut Counters) -> anyhow::Result<()> {
        let mut given = tensors(batch)?.into_iter();
        self.batch.map(&mut |place| {
            let mut place = place.shallow_clone();
            if let Some(given) = given.next() {
                place.f_copy_(&given)?;
            }
            Ok(place)
        })?;
        counters.add(&self.counted)?;
        (self.again)()
    }
}

fn tensors(batch: &impl StepInput) -> anyhow::Result<Vec<Tensor>> {
    let mut tensors = Vec::new();
    batch.map(&mut |tensor| {
        tensors.push(tensor.shallow_clone());
        Ok(tensor.shallow_clone())
    })?;
    Ok(tensors)
}

fn shapes(batch: &impl StepInput) -> anyhow::Result<Shapes> {
    Ok(tensors(batch)?.iter().map(Tensor::size).collect())
}

/// The tensors of the host that a step changes: it counts in them.
#[derive(Debug)]
struct Counters(Vec<Tensor>);

impl Counters {
    fn of<'t>(state: impl IntoIterator<Item = &'t Tensor>) -> Self {
        let state = state.into_iter().filter(|tensor| tensor.device() == Device::Cpu);
        Self(state.map(Tensor::shallow_clone).collect())
    }

    fn read(&self) -> anyhow::Result<Vec<i64>> {
        self.0.iter().map(|counter| Ok(counter.f_int64_value(&[])?)).collect()
    }

    fn set(&mut self, numbers: &[i64]) -> anyhow::Result<()> {
        let mut counters = self.0.iter_mut().zip(numbers);
        counters.try_for_each(|(counter, number)| Ok(counter.f_fill_(*number).map(drop)?))
    }

    fn add(&mut self, numbers: &[i64]) -> anyhow::Result<()> {
        let mut counters = self.0.iter_mut().zip(numbers);
        counters.try_for_each(|(counter, number)| Ok(counter.f_add_scalar_(*number).map(drop)?))
    }
}

/// A GPU, which records what it is given on a stream of its own.
struct Gpu {
    number: usize,
    stream: CudaStream,
}

impl Gpu {
    fn new(number: usize) -> anyhow::Result<Self> {
        Ok(Self { number, stream: CudaStream::new(number)? })
    }
}

impl Capture for Gpu {
    fn rehearse(&self, work: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.stream.run(work)
    }

    /// A graph keeps the memory of a step, and steps of other shapes and evaluations need as much beside it: a training that fits
    /// without a graph must not fail for one.
    fn record(&self, work: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<Replay> {
        let Room { free, needed } = Room::of(self.number)?;
        ensure!(
            free / 2 >= needed,
            "{} MB of the GPU's memory are free, and a graph beside other steps can take twice {} MB",
            free >> 20,
            needed >> 20,
        );
        let graph = CudaGraph::record(&self.stream, work)?;
        Ok(Box::new(move || graph.replay()))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use tch::Kind;

    use super::*;

    /// What a step changes: a sum of its batches, and how many steps there were, as networks count on the host.
    #[derive(Clone)]
    struct Work {
        factor: Rc<RefCell<Tensor>>,
        sum: Rc<RefCell<Tensor>>,
        count: Rc<RefCell<Tensor>>,
    }

    impl Work {
        fn new() -> Self {
            let zero = |kind| {
                let zero = Tensor::zeros([0i64; 0].as_slice(), (kind, Device::Cpu));
                Rc::new(RefCell::new(zero))
            };
            Self { factor: zero(Kind::Float), sum: zero(Kind::Float), count: zero(Kind::Int64) }
        }

        /// What a device does.
        fn on_device(&self, batch: &Tensor) {
            let product = batch.sum(Kind::Float) * &*self.factor.borrow();
            let _ = self.sum.borrow_mut().f_add_(&product).unwrap();
        }

        /// What the host does beside it.
        fn on_host(&self) {
            let _ = self.count.borrow_mut().f_add_scalar_(1).unwrap();
        }

        fn numbers(&self) -> (f64, i64) {
            (self.sum.borrow().double_value(&[]), self.count.borrow().int64_value(&[]))
        }
    }

    /// What a device is given.
    type Given = Box<dyn Fn()>;

    /// A device that takes note of what it is given, and does it when it is to.
    #[derive(Clone, Default)]
    struct Fake {
        given: Rc<RefCell<Vec<Given>>>,
        is_recording: Rc<Cell<bool>>,
        fails: bool,
        calls: Rc<RefCell<Vec<&'static str>>>,
    }

    impl Fake {
        fn give(&self, work: impl Fn() + 'static) {
            match self.is_recording.get() {
                true => self.given.borrow_mut().push(Box::new(work)),
                false => work(),
            }
        }
    }

    impl Capture for Fake {
        fn rehearse(&self, work: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
            self.calls.borrow_mut().push("rehearse");
            work()
        }

        fn record(&self, work: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<Replay> {
            self.calls.borrow_mut().push("record");
            self.is_recording.set(true);
            let done = work();
            self.is_recording.set(false);
            done?;
            ensure!(!self.fails, "what cannot be recorded");
            let fake = self.clone();
            Ok(Box::new(move || {
                fake.calls.borrow_mut().push("replay");
                fake.given.borrow().iter().for_each(|work| work());
                Ok(())
            }))
        }
    }

    /// Does steps with batches of these sizes, and returns what was done, and the sum beside the one of steps that are never
    /// replayed.
    fn steps(sizes: &[i64], fails: bool, is_replayable: bool) -> (Vec<&'static str>, bool) {
        let fake = Fake { fails, ..Fake::default() };
        let work = Work::new();
        let mut captured = CapturedStep {
            way: Way::Counting { gpu: Box::new(fake.clone()), seen: BTreeMap::new() },
            counters: Counters::of([&*work.count.borrow()]),
            context: None,
            is_said: false,
        };
        let expected = Work::new();
        for (step, size) in (1..).zip(sizes) {
            let mut batch = Tensor::full([*size], f64::from(step), (Kind::Float, Device::Cpu));
            for work in [&work, &expected] {
                let _ = work.factor.borrow_mut().fill_(1.0 / f64::from(step + 3));
            }
            expected.on_device(&batch);
            expected.on_host();
            let compute = |batch: &Tensor| {
                let (of_device, batch) = (work.clone(), batch.shallow_clone());
                fake.give(move || of_device.on_device(&batch));
                work.on_host();
                Ok(())
            };
            captured.run(&batch, is_replayable, compute).unwrap();
            // The batch of a step does not outlive it.
            drop(batch.fill_(f64::NAN));
        }
        (fake.calls.take(), work.numbers() == expected.numbers())
    }

    #[test]
    fn a_step_is_replayed_after_three_of_its_shapes_and_other_shapes_are_not() {
        let (calls, is_same) = steps(&[4, 4, 2, 4, 4, 2, 4, 2, 2, 4], false, true);
        assert!(is_same);
        let [rehearse, record, replay] = ["rehearse", "record", "replay"];
        // The short ones in between, and then at the end, are not.
        let first = [rehearse; 4].into_iter().chain([record, replay]);
        assert_eq!(calls, first.chain([replay; 2]).collect::<Vec<_>>());
    }

    #[test]
    fn a_step_that_cannot_be_recorded_is_done_and_none_is_recorded_again() {
        let (calls, is_same) = steps(&[4; 10], true, true);
        assert!(is_same);
        assert_eq!(calls, ["rehearse", "rehearse", "rehearse", "record"]);
    }

    #[test]
    fn steps_that_differ_are_never_replayed() {
        assert_eq!(steps(&[4; 10], false, false), (Vec::new(), true));
    }

    #[test]
    fn it_is_off_unless_the_variable_says_on() {
        for (value, expected) in
            [(None, false), (Some(""), false), (Some("on"), true), (Some("off"), false)]
        {
            assert_eq!(is_on(value).unwrap(), expected, "{value:?}");
        }
        assert!(is_on(Some("no")).unwrap_err().to_string().contains("'on' or 'off'"));
    }
}
