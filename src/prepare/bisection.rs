//! Where a function changes, by halving an interval.

/// The number between `low` and `high` at which `is_below` turns from true to false, to the last bit.
pub(crate) fn turn(low: f64, high: f64, is_below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (low, high);
    loop {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            return middle;
        }
        if is_below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
}
