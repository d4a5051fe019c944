//! Padding by reflection: what an image shows beyond its borders.

/// The index within 0..`size` that a reflection without the edge itself shows at `index`.
pub(super) fn reflected(index: i64, size: usize) -> usize {
    let last = size as i64 - 1;
    if last <= 0 {
        return 0;
    }
    let folded = index.rem_euclid(2 * last);
    (if folded > last { 2 * last - folded } else { folded }) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_is_not_shown_twice() {
        let row: Vec<usize> = (-3..7).map(|index| reflected(index, 4)).collect();
        assert_eq!(row, [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]);
        assert_eq!(reflected(5, 1), 0);
    }
}
