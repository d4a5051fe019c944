//! What moves the weights: SGD with momentum, plain or Nesterov's, LARS and Adam.
//!
//! They are our own because their state must be saved and restored to the bit, which tch's
//! optimizers cannot do. Does not depend on any schedule: every step is given its learning rate.

use std::ops::Range;

use anyhow::ensure;
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::kinds::{Optimizer, Train};
use tch::Tensor;

use super::weight_storage::{WeightStorage, aligned, part, view};
use crate::network::{NetworkState, NetworkTensor, Values};

/// An optimizer's rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// b <- momentum b + g; p <- p - lr b. Without Nesterov or dampening.
    Sgd {
        /// How much of the momentum buffer stays.
        momentum: f64,
    },
    /// SGD that looks ahead along its momentum, as PyTorch has Nesterov's: b <- momentum b + g;
    /// p <- p - lr (g + momentum b).
    Nesterov {
        /// As for SGD.
        momentum: f64,
    },
    /// SGD on gradients that are rescaled to the length of their weights: g <- trust |p|/|g| g
    /// (You et al., "Large batch training of convolutional networks", 2017), where both lengths are not
    /// zero, for parameters that are decayed.
    Lars {
        /// As for SGD.
        momentum: f64,
        /// The trust coefficient.
        trust: f64,
    },
    /// Adam (Kingma and Ba, 2015) as PyTorch has it; weight decay is added to the gradient.
    Adam {
        /// How much of the mean gradient stays.
        beta1: f64,
        /// How much of the mean squared gradient stays.
        beta2: f64,
        /// Keeps the division finite.
        epsilon: f64,
    },
}

impl Rule {
    /// Adam with its usual constants.
    pub const ADAM: Self = Self::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    /// LARS as SimCLR uses it.
    pub const LARS: Self = Self::Lars { momentum: 0.9, trust: 0.001 };

    /// The rule that a stage asks for.
    pub fn of(parameters: &Train) -> Self {
        match parameters.optimizer {
            Optimizer::Sgd => Self::Sgd { momentum: parameters.momentum },
            Optimizer::Adam => Self::ADAM,
        }
    }

    /// The names of the tensors that it keeps per parameter.
    fn slots(self) -> &'static [&'static str] {
        match self {
            Self::Sgd { .. } | Self::Nesterov { .. } | Self::Lars { .. } => &["momentum"],
            Self::Adam { .. } => &["mean", "square"],
        }
    }
}

/// A parameter and what the rule keeps for it: views of the optimizer's [`WeightStorage`], in its order.
#[derive(Debug)]
struct Parameter {
    name: String,
    tensor: Tensor,
    /// Its place among the trained tensors of the network.
    place: usize,
    /// A weight in bf16, where the network computes in it: what [`NetworkOptimizer::values`] has in the place of `tensor`.
    rounded: Option<Tensor>,
    decayed: bool,
    /// Of the storage.
    elements: Range<i64>,
    kept: Vec<Tensor>,
}

/// A rule at work on the parameters of a network.
#[derive(Debug)]
pub struct NetworkOptimizer {
    rule: Rule,
    weight_decay: f64,
    /// Those that are decayed first, and of these the weights of large products.
    parameters: Vec<Parameter>,
    storage: WeightStorage,
    /// The gradients of [`NetworkOptimizer::backward`], one a parameter, until the step that uses them.
    fresh: Option<Vec<Tensor>>,
    scalars: Scalars,
}

/// Numbers where the parameters are, each without dimensions. A step reads from there what differs between steps, so that
/// it can be replayed.
#[derive(Debug)]
struct Scalars {
    weight_decay: Tensor,
    /// Zero for a rule without it.
    momentum: Tensor,
    /// What a direction is multiplied by before it is added: negative.
    factor: Tensor,
    /// Of Adam, sqrt(1 - beta2^t).
    correction: Tensor,
}

impl Scalars {
    /// Of a rule, before its first step. In the type of `values`, and where these are.
    fn new(rule: Rule, weight_decay: f64, values: &Tensor) -> anyhow::Result<Self> {
        let options = (values.f_kind()?, values.device());
        let scalar = |value: f64| Tensor::f_full([0i64; 0].as_slice(), value, options);
        let momentum = match rule {
            Rule::Sgd { momentum } | Rule::Nesterov { momentum } | Rule::Lars { momentum, .. } => {
                momentum
            }
            Rule::Adam { .. } => 0.0,
        };
        Ok(Self {
            weight_decay: scalar(weight_decay)?,
            momentum: scalar(momentum)?,
            factor: scalar(0.0)?,
            correction: scalar(1.0)?,
        })
    }
}

impl NetworkOptimizer {
    /// An optimizer of all trained tensors. `decays` says by its name whether one is decayed.
    ///
    /// The tensors keep their values and get other storage, so one optimizer at a time can move them.
    ///
    /// # Errors
    /// When libtorch cannot make its tensors.
    pub fn new(
        rule: Rule,
        weight_decay: f64,
        state: &NetworkState,
        decays: fn(&str) -> bool,
    ) -> anyhow::Result<Self> {
        let _no_gradients = tch::no_grad_guard();
        let mut trained: Vec<(usize, &NetworkTensor)> = state.trained().enumerate().collect();
        trained.sort_by_key(|(_, named)| (!decays(&named.name), !is_factor(&named.tensor)));
        let tensors: Vec<&Tensor> = trained.iter().map(|(_, named)| &named.tensor).collect();
        let storage = WeightStorage::of(&tensors, rule.slots().len())?;
        let mut parameters = Vec::new();
        let mut first = 0;
        for (place, named) in trained {
            let (mut tensor, shape) = (named.tensor.shallow_clone(), named.tensor.size());
            let elements = first..first + shape.iter().product::<i64>();
            first = aligned(elements.end);
            tensor.f_set_data(&view(&storage.values, &elements, &shape)?)?;
            let kept = storage.kept.iter().map(|kept| view(kept, &elements, &shape));
            let kept = kept.collect::<anyhow::Result<_>>()?;
            let (name, decayed) = (named.name.clone(), decays(&named.name));
            let rounded = None;
            parameters.push(Parameter { name, tensor, place, rounded, decayed, elements, kept });
        }
        let scalars = Scalars::new(rule, weight_decay, &storage.values)?;
        Ok(Self { rule, weight_decay, parameters, storage, fresh: None, scalars })
    }

    /// The same optimizer, of a network that computes in another precision. In bf16 it also has the weights of convolutions and
    /// linear layers in that; biases and batch norm stay as they are.
    ///
    /// # Errors
    /// When libtorch cannot make its tensors.
    pub fn with_precision(mut self, precision: Precision) -> anyhow::Result<Self> {
        if precision == Precision::Bf16 {
            let values = self.storage.add_rounded()?;
            for parameter in self.parameters.iter_mut().filter(|one| is_factor(&one.tensor)) {
                let view = view(values, &parameter.elements, &parameter.tensor.size())?;
                // Not a view to libtorch: a pass may round again what an earlier one remembers.
                parameter.rounded = Some(view.f_data()?.f_set_requires_grad(true)?);
            }
        }
        Ok(self)
    }

    /// What a network computes with in a step: its state, of which this optimizer moves the trained tensors. In bf16 with the
    /// weights rounded as they are now; the results are those of [`NetworkState::values`].
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn values(&self, state: &NetworkState) -> anyhow::Result<Values> {
        if !self.storage.round()? {
            return Ok(state.values());
        }
        let mut trained: Vec<&Parameter> = self.parameters.iter().collect();
        trained.sort_by_key(|parameter| parameter.place);
        let value = |one: &Parameter| one.rounded.as_ref().unwrap_or(&one.tensor).shallow_clone();
        state.values_with(&trained.into_iter().map(value).collect::<Vec<_>>())
    }

    /// The gradients of a loss, a scalar, for the next step. It may depend on [`NetworkOptimizer::values`] and on the network's own
    /// tensors. Gradients that libtorch accumulated before do not matter then.
    ///
    /// # Errors
    /// When libtorch fails, or the loss depends on no parameter.
    pub fn backward(&mut self, loss: &Tensor) -> anyhow::Result<()> {
        let tensors = self.parameters.iter().map(|one| &one.tensor);
        let rounded = self.parameters.iter().filter_map(|one| one.rounded.as_ref());
        let leaves: Vec<&Tensor> = tensors.chain(rounded).collect();
        let mut gradients = Tensor::f_run_backward(&[loss], &leaves, false, false)?;
        let of_rounded = gradients.split_off(self.parameters.len());
        let of_tensors = self.parameters.iter().zip(&mut gradients);
        let of_tensors = of_tensors.filter(|(parameter, _)| parameter.rounded.is_some());
        for ((_, gradient), of_rounded) in of_tensors.zip(of_rounded) {
            match (gradient.defined(), of_rounded.defined()) {
                (false, _) => *gradient = of_rounded,
                (true, true) => *gradient = gradient.f_add(&of_rounded)?,
                (true, false) => {}
            }
        }
        self.fresh = Some(gradients);
        Ok(())
    }

    /// Sets to zero what libtorch's own `backward` accumulates. Not needed with [`NetworkOptimizer::backward`].
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn zero_gradients(&mut self) -> anyhow::Result<()> {
        let _no_gradients = tch::no_grad_guard();
        for parameter in &self.parameters {
            let mut gradient = parameter.tensor.f_grad()?;
            if gradient.defined() {
                let _ = gradient.f_zero_()?;
            }
        }
        Ok(())
    }

    /// Sets the learning rate of the next step, and how many were done before it. Waits for nothing.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn begin_step(&mut self, learning_rate: f64, steps: u64) -> anyhow::Result<()> {
        let factor = match self.rule {
            Rule::Sgd { .. } | Rule::Nesterov { .. } | Rule::Lars { .. } => learning_rate,
            Rule::Adam { beta1, beta2, .. } => {
                let count = i32::try_from(steps + 1).unwrap_or(i32::MAX);
                let correction = (1.0 - beta2.powi(count)).sqrt();
                let _ = self.scalars.correction.f_fill_(correction)?;
                learning_rate / (1.0 - beta1.powi(count))
            }
        };
        let _ = self.scalars.factor.f_fill_(-factor)?;
        Ok(())
    }

    /// Moves every parameter that has a gradient along it, after [`NetworkOptimizer::begin_step`].
    ///
    /// # Errors
    /// When libtorch fails, or another optimizer has taken over the parameters.
    pub fn step(&mut self) -> anyhow::Result<()> {
        let _no_gradients = tch::no_grad_guard();
        self.check_ownership()?;
        let gradients = match self.fresh.take() {
            Some(gradients) => gradients,
            None => {
                let rounded = self.parameters.iter().filter_map(|one| one.rounded.as_ref());
                let lost =
                    rounded.map(Tensor::f_grad).any(|grad| grad.is_ok_and(|it| it.defined()));
                ensure!(!lost, "gradients of weights in bf16 come from NetworkOptimizer::backward");
                let accumulated = self.parameters.iter().map(|one| one.tensor.f_grad());
                accumulated.collect::<Result<Vec<_>, _>>()?
            }
        };
        for run in self.runs(&gradients) {
            let elements = self.collect(&run, &gradients)?;
            self.decay(&run, &elements)?;
            self.descend(&elements)?;
        }
        Ok(())
    }

    /// What it keeps between steps, under names that begin with `optimizer.`.
    pub fn state_tensors(&self) -> Vec<(String, &Tensor)> {
        let slots = self.rule.slots();
        let of_one = |parameter: &'_ Parameter, slot: usize| {
            format!("optimizer.{}.{}", slots[slot], parameter.name)
        };
        self.parameters
            .iter()
            .flat_map(|parameter| {
                let kept = parameter.kept.iter().enumerate();
                kept.map(move |(slot, tensor)| (of_one(parameter, slot), tensor))
            })
            .collect()
    }

    fn check_ownership(&self) -> anyhow::Result<()> {
        let begin = self.storage.values.data_ptr() as usize;
        let size = self.storage.values.f_kind()?.elt_size_in_bytes();
        let moved = self.parameters.iter().find(|parameter| {
            parameter.tensor.data_ptr() as usize != begin + parameter.elements.start as usize * size
        });
        ensure!(
            moved.is_none(),
            "'{}' belongs to another optimizer now",
            moved.map_or("", |parameter| &parameter.name)
        );
        Ok(())
    }

    /// Neighbours that are treated alike: all with a gradient, and all decayed or none.
    fn runs(&self, gradients: &[Tensor]) -> Vec<Range<usize>> {
        let with_gradient = (0..self.parameters.len()).filter(|&index| gradients[index].defined());
        alike(with_gradient, |index| self.parameters[index].decayed)
    }

    /// The elements that neighbours span.
    fn elements(&self, run: &Range<usize>) -> Range<i64> {
        let (first, last) = (&self.parameters[run.start], &self.parameters[run.end - 1]);
        first.elements.start..aligned(last.elements.end)
    }

    /// Gathers the gradients of a run, those of one type together, and returns the elements that it spans.
    fn collect(&self, run: &Range<usize>, gradients: &[Tensor]) -> anyhow::Result<Range<i64>> {
        for of_type in alike(run.clone(), |index| gradients[index].f_kind().ok()) {
            self.storage.gather(&self.elements(&of_type), &gradients[of_type])?;
        }
        Ok(self.elements(run))
    }

    fn decay(&self, run: &Range<usize>, elements: &Range<i64>) -> anyhow::Result<()> {
        if !self.parameters[run.start].decayed {
            return Ok(());
        }
        let mut gradients = part(&self.storage.gradients, elements)?;
        let values = part(&self.storage.values, elements)?;
        if self.weight_decay > 0.0 {
            let _ = gradients.f_addcmul_(&values, &self.scalars.weight_decay)?;
        }
        if let Rule::Lars { trust, .. } = self.rule {
            let of_each = |flat| {
                let run = self.parameters[run.clone()].iter();
                run.map(|one| part(flat, &one.elements)).collect::<anyhow::Result<Vec<_>>>()
            };
            rescale(of_each(&self.storage.gradients)?, &of_each(&self.storage.values)?, trust)?;
        }
        Ok(())
    }

    fn descend(&self, elements: &Range<i64>) -> anyhow::Result<()> {
        let Scalars { momentum, factor, correction, .. } = &self.scalars;
        let mut values = part(&self.storage.values, elements)?;
        let mut gradients = part(&self.storage.gradients, elements)?;
        let kept = self.storage.kept.iter().map(|kept| part(kept, elements));
        let mut kept = kept.collect::<anyhow::Result<Vec<_>>>()?;
        match (self.rule, kept.as_mut_slice()) {
            (Rule::Sgd { .. } | Rule::Lars { .. }, [buffer]) => {
                let _ = gradients.f_addcmul_out(buffer, buffer, momentum)?;
                let _ = values.f_addcmul_(buffer, factor)?;
            }
            (Rule::Nesterov { .. }, [buffer]) => {
                let _ = gradients.f_addcmul_out(buffer, buffer, momentum)?;
                let _ = gradients.f_addcmul_(buffer, momentum)?;
                let _ = values.f_addcmul_(&gradients, factor)?;
            }
            (Rule::Adam { beta1, beta2, epsilon }, [mean, square]) => {
                let _ = mean.f_lerp_(&gradients, 1.0 - beta1)?;
                let _ = square.f_lerp_(&gradients.f_square()?, 1.0 - beta2)?;
                let denominator = square.f_sqrt()?.f_div_(correction)?.f_add_scalar_(epsilon)?;
                let direction = mean.f_div(&denominator)?;
                let _ = values.f_addcmul_(&direction, factor)?;
            }
            _ => anyhow::bail!("an optimizer keeps other tensors than its rule needs"),
        }
        Ok(())
    }
}

/// Whether a tensor is the weight of a convolution or of a linear layer, and not a bias or a part of batch norm.
fn is_factor(tensor: &Tensor) -> bool {
    tensor.dim() > 1
}

/// Runs of neighbouring indices, in rising order, of which something is the same.
fn alike<T: PartialEq>(
    indices: impl IntoIterator<Item = usize>,
    of: impl Fn(usize) -> T,
) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for index in indices {
        match runs.last_mut() {
            Some(run) if run.end == index && of(run.start) == of(index) => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}

/// Multiplies each gradient by trust |p|/|g|, or by 1 where a length is zero. Without waiting for a GPU.
fn rescale(gradients: Vec<Tensor>, parameters: &[Tensor], trust: f64) -> anyhow::Result<()> {
    let lengths = |tensors: &[Tensor]| -> anyhow::Result<Tensor> {
        let lengths = tensors.iter().map(Tensor::f_norm).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::f_stack(&lengths, 0)?)
    };
    let (of_parameters, of_gradients) = (lengths(parameters)?, lengths(&gradients)?);
    let known = of_parameters.f_gt(0.0)?.f_logical_and(&of_gradients.f_gt(0.0)?)?;
    let ratios = of_parameters.f_div(&of_gradients)?.f_mul_scalar(trust)?;
    let factors = ratios.f_where_self(&known, &ratios.f_ones_like()?)?;
    for (mut gradient, factor) in gradients.into_iter().zip(factors.f_unbind(0)?) {
        let _ = gradient.f_mul_(&factor)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pipeline_stages::kinds::architecture::Architecture;
    use tch::{Device, Kind};

    use super::*;
    use crate::network::{Builder, Classifier, Initial, Mode, TensorRole};
    use crate::random::Purpose;
    use crate::training::decay;

    const SGD: Rule = Rule::Sgd { momentum: 0.9 };

    fn state() -> NetworkState {
        let mut builder = Builder::new(1, Purpose::InitialEncoder, Device::Cpu);
        let drawn = Initial::UniformFanIn;
        for (name, shape) in [("conv", vec![2, 3, 2, 2]), ("bn", vec![4]), ("fc", vec![2, 5])] {
            let _ = builder.float(name, &shape, drawn, TensorRole::Trained).unwrap();
        }
        builder.finish()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.detach().contiguous().flatten(0, -1)).unwrap()
    }

    fn loss(state: &NetworkState, names: &[&str]) -> Tensor {
        let named = state.tensors().iter().filter(|named| names.contains(&named.name.as_str()));
        named.map(|named| named.tensor.square().sum(Kind::Float)).sum()
    }

    #[test]
    fn taking_over_a_state_keeps_its_values_and_its_shapes() {
        let (plain, taken) = (state(), state());
        let _optimizer = NetworkOptimizer::new(SGD, 0.0, &taken, |_| true).unwrap();
        for (plain, taken) in plain.tensors().iter().zip(taken.tensors()) {
            assert_eq!(plain.tensor.size(), taken.tensor.size());
            assert_eq!(values(&plain.tensor), values(&taken.tensor));
        }
        // Input channels innermost.
        assert_eq!(taken.tensors()[0].tensor.stride(), [12, 1, 6, 3]);
    }

    #[test]
    fn both_ways_to_gradients_move_alike() {
        let states = [state(), state()];
        for (accumulates, state) in states.iter().enumerate() {
            let decays = |name: &str| name != "bn";
            let mut optimizer = NetworkOptimizer::new(Rule::LARS, 0.1, state, decays).unwrap();
            for step in 0..3 {
                let loss = loss(state, &["conv", "bn", "fc"]);
                if accumulates == 1 {
                    optimizer.zero_gradients().unwrap();
                    loss.backward();
                } else {
                    optimizer.backward(&loss).unwrap();
                }
                optimizer.begin_step(0.1, step).unwrap();
                optimizer.step().unwrap();
            }
        }
        for (one, other) in states[0].tensors().iter().zip(states[1].tensors()) {
            assert_eq!(values(&one.tensor), values(&other.tensor));
        }
    }

    #[test]
    fn nesterov_looks_ahead_along_its_momentum() {
        let (state, before) = (state(), state());
        let rule = Rule::Nesterov { momentum: 0.9 };
        let mut optimizer = NetworkOptimizer::new(rule, 0.0, &state, |_| true).unwrap();
        for step in 0..2 {
            let gradients_of_one = state.tensors()[2].tensor.sum(Kind::Float);
            optimizer.backward(&gradients_of_one).unwrap();
            optimizer.begin_step(0.1, step).unwrap();
            optimizer.step().unwrap();
        }
        // b = 1, then 1.9; moved by 0.1 (1 + 0.9 b).
        let moved = values(&(&before.tensors()[2].tensor - &state.tensors()[2].tensor));
        assert!(moved.iter().all(|moved| (moved - 0.461).abs() < 1e-6), "{moved:?}");
    }

    #[test]
    fn what_has_no_gradient_stays() {
        let (state, before) = (state(), state());
        let mut optimizer = NetworkOptimizer::new(SGD, 0.1, &state, |_| true).unwrap();
        optimizer.backward(&loss(&state, &["conv", "fc"])).unwrap();
        optimizer.begin_step(0.1, 0).unwrap();
        optimizer.step().unwrap();
        for (after, before) in state.tensors().iter().zip(before.tensors()) {
            let stays = values(&after.tensor) == values(&before.tensor);
            assert_eq!(stays, after.name == "bn", "{}", after.name);
        }
    }

    /// A network in bf16 after a few steps by a loss, and its optimizer. The loss is of two passes: with the optimizer's values, and
    /// with the network's own, which are rounded one by one.
    fn trained(
        rule: Rule,
        decays: fn(&str) -> bool,
        loss: fn([Tensor; 2]) -> Tensor,
    ) -> (Classifier, NetworkOptimizer) {
        let network = Classifier::new(Architecture::Resnet18, 3, 7, 5, Device::Cpu).unwrap();
        let network = network.with_precision(Precision::Bf16);
        let optimizer = NetworkOptimizer::new(rule, 0.01, network.state(), decays).unwrap();
        let mut optimizer = optimizer.with_precision(Precision::Bf16).unwrap();
        let images = Tensor::arange(3 * 3 * 8 * 8, (Kind::Float, Device::Cpu)).sin();
        let (images, labels) = (images.view([3, 3, 8, 8]), Tensor::from_slice(&[0i64, 3, 6]));
        for step in 0..3 {
            let both = [optimizer.values(network.state()).unwrap(), network.state().values()];
            let losses = both.map(|values| {
                let logits = network.forward_with(values, &images, Mode::LookAhead).unwrap();
                logits.cross_entropy_for_logits(&labels)
            });
            optimizer.backward(&loss(losses)).unwrap();
            optimizer.begin_step(0.01, step).unwrap();
            optimizer.step().unwrap();
        }
        (network, optimizer)
    }

    fn are_equal(
        one: &(Classifier, NetworkOptimizer),
        other: &(Classifier, NetworkOptimizer),
    ) -> bool {
        let [one, other] = [one, other].map(|(network, optimizer)| {
            let trained = network.state().trained().map(|named| named.tensor.detach());
            let kept = optimizer.state_tensors().into_iter().map(|(_, kept)| kept.detach());
            trained.chain(kept).collect::<Vec<_>>()
        });
        assert!(one.iter().all(|tensor| bool::try_from(tensor.isfinite().all()).unwrap()));
        one == other
    }

    #[test]
    fn weights_rounded_at_once_move_as_those_rounded_one_by_one() {
        for (rule, decays) in [
            (SGD, decay::supervised as fn(&str) -> bool),
            (Rule::Nesterov { momentum: 0.9 }, decay::all),
            (Rule::LARS, decay::contrastive),
            (Rule::ADAM, decay::supervised),
        ] {
            let at_once = trained(rule, decays, |[at_once, _]| at_once);
            let one_by_one = trained(rule, decays, |[_, one_by_one]| one_by_one);
            assert!(are_equal(&at_once, &one_by_one), "{rule:?}");
        }
    }

    #[test]
    fn gradients_by_both_kinds_of_weights_are_added() {
        let both = trained(SGD, decay::all, |[at_once, one_by_one]| at_once + one_by_one);
        let twice = trained(SGD, decay::all, |[at_once, _]| at_once * 2.0);
        assert!(are_equal(&both, &twice));
    }

    #[test]
    fn two_optimizers_of_the_same_parameters_are_an_error() {
        let state = state();
        let mut first = NetworkOptimizer::new(SGD, 0.0, &state, |_| true).unwrap();
        let mut second = NetworkOptimizer::new(SGD, 0.0, &state, |_| true).unwrap();
        for (optimizer, works) in [(&mut first, false), (&mut second, true)] {
            optimizer.backward(&loss(&state, &["fc"])).unwrap();
            optimizer.begin_step(0.1, 0).unwrap();
            assert_eq!(optimizer.step().is_ok(), works);
        }
    }
}
