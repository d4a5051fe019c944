//! Making things ahead of their use.

use std::sync::mpsc;
use std::thread;

/// Consumes what is produced, up to `depth` items of which are made ahead by a thread of their own;
/// with a depth of 0, each when it is asked for.
pub fn prefetch<T: Send, R>(
    depth: usize,
    mut produce: impl Iterator<Item = T> + Send,
    consume: impl FnOnce(&mut dyn Iterator<Item = T>) -> R,
) -> R {
    if depth == 0 {
        return consume(&mut produce);
    }
    let consumed = thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(depth);
        let produce = &mut produce;
        // It ends when the receiver is gone.
        let work = move || produce.try_for_each(|item| sender.send(item));
        if thread::Builder::new().spawn_scoped(scope, work).is_err() {
            return Err(consume);
        }
        let mut items = receiver.into_iter();
        let result = consume(&mut items);
        drop(items);
        Ok(result)
    });
    // Where the system has no thread left, each is made when it is asked for.
    consumed.unwrap_or_else(|consume| consume(&mut produce))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_ahead_comes_in_order_and_can_be_left() {
        for depth in [0, 1, 3] {
            let all: Vec<u32> = prefetch(depth, 0..100, |items| items.collect());
            assert_eq!(all, (0..100).collect::<Vec<_>>());
            assert_eq!(prefetch(depth, 0.., |items| items.nth(5)), Some(5));
        }
    }
}
