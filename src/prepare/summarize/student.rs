//! The quantile of Student's t distribution that 95 % intervals need.

use std::f64::consts::FRAC_2_PI;

use crate::bisection;

/// The share of the distribution within an interval.
const LEVEL: f64 = 0.95;

/// The t with 95 % of Student's distribution between -t and t: its quantile at 0.975. `degrees` is at least 1.
pub(super) fn t_95(degrees: usize) -> f64 {
    // It falls from 12.7 at one degree of freedom to the 1.96 of the normal distribution.
    bisection::turn(1.9, 13.0, |t| share_within(t, degrees) < LEVEL)
}

/// The share of Student's distribution between -t and t: the finite series for whole degrees of freedom of Abramowitz and Stegun,
/// Handbook of Mathematical Functions (1964), 26.7.3 and 26.7.4.
fn share_within(t: f64, degrees: usize) -> f64 {
    let nu = degrees as f64;
    let angle = (t / nu.sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let odd = degrees % 2 == 1;
    let terms = if odd { (degrees - 1) / 2 } else { degrees / 2 };
    let mut term = if odd { cosine } else { 1.0 };
    let mut sum = 0.0;
    for index in 1..=terms {
        sum += term;
        let even = 2.0 * index as f64;
        let ratio = if odd { even / (even + 1.0) } else { (even - 1.0) / even };
        term *= ratio * cosine * cosine;
        if term < sum * 1e-18 {
            break;
        }
    }
    if odd { FRAC_2_PI * (angle + sine * sum) } else { sine * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_falls_to_that_of_the_normal_distribution() {
        let mut last = f64::INFINITY;
        for degrees in 1..500 {
            let t = t_95(degrees);
            assert!(t < last && t > 1.959_963_984_540_054, "{degrees}: {t}");
            last = t;
        }
    }
}
