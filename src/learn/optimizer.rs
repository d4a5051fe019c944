//! What moves the weights: SGD with momentum, plain or Nesterov's, LARS and Adam.
//!
//! They are our own because their state must be saved and restored to the bit, which tch's
//! optimizers can't do. Knows no schedule: every step is given its learning rate.

use tch::{Kind, Tensor};

use crate::network::State;

/// An optimizer's rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// b <- momentum b + g; p <- p - lr b. Without Nesterov or dampening.
    Sgd {
        /// How much of the last direction stays.
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

    /// The names of the tensors that it keeps per parameter.
    fn slots(self) -> &'static [&'static str] {
        match self {
            Self::Sgd { .. } | Self::Nesterov { .. } | Self::Lars { .. } => &["momentum"],
            Self::Adam { .. } => &["mean", "square"],
        }
    }
}

/// A parameter and what the rule keeps for it.
#[derive(Debug)]
struct Parameter {
    name: String,
    tensor: Tensor,
    decayed: bool,
    kept: Vec<Tensor>,
}

/// A rule at work on the parameters of a network.
#[derive(Debug)]
pub struct Optimizer {
    rule: Rule,
    weight_decay: f64,
    parameters: Vec<Parameter>,
}

impl Optimizer {
    /// An optimizer of all trained tensors. `decays` says by its name whether one is decayed.
    ///
    /// # Errors
    /// When libtorch can't make its tensors.
    pub fn new(
        rule: Rule,
        weight_decay: f64,
        state: &State,
        decays: fn(&str) -> bool,
    ) -> anyhow::Result<Self> {
        let parameters = state.trained().map(|named| {
            let zeros = |_: &&str| Ok(named.tensor.f_detach()?.f_zeros_like()?);
            Ok(Parameter {
                name: named.name.clone(),
                tensor: named.tensor.shallow_clone(),
                decayed: decays(&named.name),
                kept: rule.slots().iter().map(zeros).collect::<anyhow::Result<_>>()?,
            })
        });
        Ok(Self { rule, weight_decay, parameters: parameters.collect::<anyhow::Result<_>>()? })
    }

    /// Forgets the gradients of the last step.
    pub fn zero_gradients(&mut self) {
        for parameter in &mut self.parameters {
            parameter.tensor.zero_grad();
        }
    }

    /// Moves every parameter along its gradient. `step` counts from 0.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn step(&mut self, learning_rate: f64, step: u64) -> anyhow::Result<()> {
        let _no_gradients = tch::no_grad_guard();
        let (rule, weight_decay) = (self.rule, self.weight_decay);
        for parameter in &mut self.parameters {
            let mut gradient = parameter.tensor.f_grad()?;
            if !gradient.defined() {
                continue;
            }
            if parameter.decayed && weight_decay > 0.0 {
                gradient = gradient.f_add(&parameter.tensor.f_mul_scalar(weight_decay)?)?;
            }
            match rule {
                Rule::Sgd { momentum } => {
                    parameter.descend_with_momentum(&gradient, momentum, learning_rate)?;
                }
                Rule::Nesterov { momentum } => {
                    parameter.descend_ahead(&gradient, momentum, learning_rate)?;
                }
                Rule::Lars { momentum, trust } => {
                    if parameter.decayed {
                        gradient = rescaled(&gradient, &parameter.tensor, trust)?;
                    }
                    parameter.descend_with_momentum(&gradient, momentum, learning_rate)?;
                }
                Rule::Adam { beta1, beta2, epsilon } => {
                    let count = i32::try_from(step + 1).unwrap_or(i32::MAX);
                    parameter.descend_adaptively(
                        &gradient,
                        [beta1, beta2],
                        epsilon,
                        learning_rate,
                        count,
                    )?;
                }
            }
        }
        Ok(())
    }

    /// What it keeps between steps, under names that begin with `optimizer.`.
    pub fn kept(&self) -> Vec<(String, &Tensor)> {
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
}

impl Parameter {
    fn descend_with_momentum(
        &mut self,
        gradient: &Tensor,
        momentum: f64,
        learning_rate: f64,
    ) -> anyhow::Result<()> {
        for direction in &mut self.kept {
            let _ = direction.f_mul_scalar_(momentum)?.f_add_(gradient)?;
            let _ = self.tensor.f_sub_(&direction.f_mul_scalar(learning_rate)?)?;
        }
        Ok(())
    }

    fn descend_ahead(
        &mut self,
        gradient: &Tensor,
        momentum: f64,
        learning_rate: f64,
    ) -> anyhow::Result<()> {
        for buffer in &mut self.kept {
            let _ = buffer.f_mul_scalar_(momentum)?.f_add_(gradient)?;
            let ahead = gradient.f_add(&buffer.f_mul_scalar(momentum)?)?;
            let _ = self.tensor.f_sub_(&ahead.f_mul_scalar(learning_rate)?)?;
        }
        Ok(())
    }

    fn descend_adaptively(
        &mut self,
        gradient: &Tensor,
        [beta1, beta2]: [f64; 2],
        epsilon: f64,
        learning_rate: f64,
        count: i32,
    ) -> anyhow::Result<()> {
        if let [mean, square] = self.kept.as_mut_slice() {
            let _ = mean.f_lerp_(gradient, 1.0 - beta1)?;
            let _ = square.f_lerp_(&gradient.f_square()?, 1.0 - beta2)?;
            let scale = (1.0 - beta2.powi(count)).sqrt();
            let length = square.f_sqrt()?.f_div_scalar(scale)?.f_add_scalar(epsilon)?;
            let stride = learning_rate / (1.0 - beta1.powi(count));
            let _ = self.tensor.f_sub_(&mean.f_div(&length)?.f_mul_scalar(stride)?)?;
        }
        Ok(())
    }
}

/// trust |p|/|g| g, or g where a length is zero. Without waiting for a GPU.
fn rescaled(gradient: &Tensor, parameter: &Tensor, trust: f64) -> anyhow::Result<Tensor> {
    let (of_parameter, of_gradient) = (parameter.f_norm()?, gradient.f_norm()?);
    let known = of_parameter.f_gt(0.0)?.f_logical_and(&of_gradient.f_gt(0.0)?)?;
    let ratio = of_parameter.f_div(&of_gradient)?.f_mul_scalar(trust)?;
    let one = ratio.f_ones_like()?;
    Ok(gradient.f_mul(&ratio.f_where_self(&known, &one)?)?.f_to_kind(Kind::Float)?)
}
