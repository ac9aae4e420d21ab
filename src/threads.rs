//! Work that several threads do: the same on many things, or two things at once.

use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

/// Works on every item, on at most `at_most` threads, the caller's included. The next item is taken by whoever is free; a thread
/// whose item fails takes no more.
///
/// # Errors
/// One of the errors; the caller's own if there is one. Items may then be left.
pub(crate) fn for_each<T: Send, E: Send>(
    items: Vec<T>,
    at_most: usize,
    work: impl Fn(T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let threads = items.len().min(at_most);
    let items = Mutex::new(items.into_iter());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || std::iter::from_fn(next).try_for_each(&work);
    std::thread::scope(|scope| {
        // Where the system has no more threads to give, those that there are do the work.
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads).filter_map(spawn).collect();
        let own = work();
        others.into_iter().map(join).fold(own, Result::and)
    })
}

/// Does both: `other` on a thread of its own, or after `own` where there is only one thread to have.
pub(crate) fn both<A, B: Send>(threads: usize, own: impl FnOnce() -> A, other: impl Fn() -> B + Sync) -> (A, B) {
    std::thread::scope(|scope| {
        let spawn = || std::thread::Builder::new().spawn_scoped(scope, &other).ok();
        let thread = if threads > 1 { spawn() } else { None };
        let own = own();
        (own, thread.map_or_else(&other, join))
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_item_is_worked_on_once_whatever_the_number_of_threads() {
        for threads in [0, 1, 2, 16] {
            let sum = AtomicUsize::new(0);
            let add = |n| {
                sum.fetch_add(n, Ordering::Relaxed);
                Ok::<_, ()>(())
            };
            for_each((1..=100).collect(), threads, add).unwrap();
            assert_eq!(sum.into_inner(), 5050, "{threads}");
        }
    }

    #[test]
    fn both_are_done_on_one_thread_or_on_two() {
        let own = std::thread::current().id();
        for threads in [1, 2] {
            let (first, other) = both(threads, || std::thread::current().id(), || std::thread::current().id());
            assert_eq!((first == own, other == own), (true, threads == 1));
        }
    }

    #[test]
    fn an_error_of_any_thread_is_told() {
        for bad in [0, 50, 99] {
            let work = |n| if n == bad { Err(n) } else { Ok(()) };
            assert_eq!(for_each((0..100).collect(), 4, work), Err(bad));
        }
    }
}
