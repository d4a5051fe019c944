//! Forward-mode automatic differentiation: how the outputs of a function change along one direction of
//! its inputs, in one pass and without a graph (dual numbers; Griewank and Walther, "Evaluating
//! derivatives", 2008, chapter 3).
//!
//! libtorch does it; this file keeps its rules. Dual numbers live in a level, of which libtorch has one for
//! the whole process: here a level is entered by one thread at a time, and left however the function
//! ends. Does not depend on any network.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::ensure;
use tch::Tensor;

use crate::shim;

/// The derivative of `function` at `inputs` along `directions`, with the shape of the function's output: sum over
/// all inputs of Jacobian times direction.
///
/// Inputs and directions are of the same shapes and types. The function is given dual numbers in the
/// place of the inputs, and must not run backwards through them.
///
/// # Errors
/// With the function's own; when the shapes do not match; when an operation of the function has no
/// forward derivative.
pub fn derivative_along(
    inputs: &[Tensor],
    directions: &[Tensor],
    function: impl FnOnce(&[Tensor]) -> anyhow::Result<Tensor>,
) -> anyhow::Result<Tensor> {
    ensure!(
        inputs.len() == directions.len(),
        "{} inputs, but {} directions",
        inputs.len(),
        directions.len()
    );
    let _no_gradients = tch::no_grad_guard();
    let _level = Level::enter()?;
    let duals = inputs
        .iter()
        .zip(directions)
        .map(|(input, direction)| join(&input.f_detach()?, &direction.f_detach()?));
    let output = function(&duals.collect::<anyhow::Result<Vec<_>>>()?)?;
    Ok(match split(&output)? {
        (_, Some(derivative)) => derivative.f_detach()?,
        (value, None) => value.f_zeros_like()?,
    })
}

/// A dual number's value and its derivative, which a tensor that depends on no input has not. Only within the function
/// of [`derivative_along`]: for operations whose derivative is known better than libtorch knows it.
///
/// # Errors
/// When libtorch fails.
pub fn split(dual: &Tensor) -> anyhow::Result<(Tensor, Option<Tensor>)> {
    let (value, derivative) = Tensor::f_internal_unpack_dual(dual, LEVEL)?;
    Ok((value, Some(derivative).filter(Tensor::defined)))
}

/// The dual number of a value and its derivative. Only where [`split`] may be called.
///
/// # Errors
/// When the two differ in shape or type.
pub fn join(value: &Tensor, derivative: &Tensor) -> anyhow::Result<Tensor> {
    Ok(Tensor::f_internal_make_dual(value, derivative, LEVEL)?)
}

/// The only level that libtorch has so far.
const LEVEL: i64 = 0;

/// Only one thread at a time can have a level. It guards nothing that a panic could leave half done.
static ONE_LEVEL: Mutex<()> = Mutex::new(());

/// A level of dual numbers, until it is dropped.
struct Level {
    _only_one: MutexGuard<'static, ()>,
}

impl Level {
    fn enter() -> anyhow::Result<Self> {
        let only_one = ONE_LEVEL.lock().unwrap_or_else(PoisonError::into_inner);
        let level = shim::enter_dual_level()?;
        let entered = Self { _only_one: only_one };
        ensure!(level == LEVEL as u64, "libtorch is differentiating something else");
        Ok(entered)
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        // It fails only for a level that was not entered.
        let _ = shim::exit_dual_level(LEVEL as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(values: &[f64]) -> Tensor {
        Tensor::from_slice(values)
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor).unwrap()
    }

    #[test]
    fn a_product_has_both_factors_derivatives() {
        let inputs = [vector(&[1.0, 2.0]), vector(&[3.0, 4.0])];
        let directions = [vector(&[0.5, -1.0]), vector(&[2.0, 0.25])];
        let product = |values: &[Tensor]| Ok(values[0].f_mul(&values[1])?);
        let derivative = derivative_along(&inputs, &directions, product).unwrap();
        assert_eq!(numbers(&derivative), [3.5, -3.5]);
    }

    #[test]
    fn what_does_not_depend_on_the_inputs_stands_still() {
        let (input, constant) = (vector(&[1.0]), vector(&[5.0, 6.0]));
        let derivative =
            derivative_along(&[input], &[vector(&[1.0])], |_| Ok(constant.shallow_clone()));
        assert_eq!(numbers(&derivative.unwrap()), [0.0, 0.0]);
    }

    #[test]
    fn a_failure_or_a_panic_leaves_the_level_to_the_next() {
        let along = |function: fn(&[Tensor]) -> anyhow::Result<Tensor>| {
            derivative_along(&[vector(&[2.0])], &[vector(&[1.0])], function)
        };
        assert!(along(|values| Ok(values[0].f_mm(&values[0])?)).is_err());
        assert!(std::panic::catch_unwind(|| along(|_| panic!("as bad as can be"))).is_err());
        let wrong = derivative_along(&[vector(&[2.0])], &[vector(&[1.0, 1.0])], |_| unreachable!());
        assert!(wrong.is_err());
        assert_eq!(numbers(&along(|values| Ok(values[0].f_square()?)).unwrap()), [4.0]);
    }

    #[test]
    fn many_threads_take_turns() {
        std::thread::scope(|scope| {
            for start in 0..8 {
                scope.spawn(move || {
                    for step in 0..20 {
                        let value = f64::from(start + step);
                        let (input, direction) = (vector(&[value]), vector(&[1.0]));
                        let square = |values: &[Tensor]| Ok(values[0].f_square()?);
                        let derivative = derivative_along(&[input], &[direction], square);
                        assert_eq!(numbers(&derivative.unwrap()), [2.0 * value]);
                    }
                });
            }
        });
    }
}
