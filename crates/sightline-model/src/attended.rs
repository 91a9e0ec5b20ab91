//! Many short parallel parts in a row, without a thread that falls asleep between them.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::Yield;

/// Works that run now, in all threads.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Runs `work`, on the pool of the parallel iterators in it, while another thread of the pool stands by for their parts.
///
/// A thread that sleeps takes as long to wake as the product of a few rows with a matrix; a decoder or a backbone with a
/// single photo before it has hundreds of these, one after the other. Where several works run at once their threads have
/// enough to do, and nobody stands by. The result does not depend on it.
pub fn attended<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let done = AtomicBool::new(false);
    let _running = Running::new();
    let work = || {
        let _done = Done(&done);
        work()
    };
    let stand_by = || {
        while !done.load(Ordering::Acquire) && RUNNING.load(Ordering::Acquire) == 1 {
            if rayon::yield_now() != Some(Yield::Executed) {
                spin_loop();
            }
        }
    };
    rayon::join(work, stand_by).0
}

/// Counted as long as it lives.
struct Running;

impl Running {
    fn new() -> Self {
        RUNNING.fetch_add(1, Ordering::AcqRel);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Sends whoever stands by away, also where the work panics.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    fn sum(n: u64) -> u64 {
        (0..20).map(|_| (0..n).into_par_iter().sum::<u64>()).sum()
    }

    #[test]
    fn works_end_alone_nested_at_once_and_in_a_pool_of_one() {
        assert_eq!(attended(|| sum(100)), 99_000);
        assert_eq!(attended(|| attended(|| sum(100))), 99_000);
        let all: Vec<u64> = (0..32u64).into_par_iter().map(|n| attended(|| sum(n))).collect();
        assert_eq!(all, (0..32).map(|n: u64| 20 * n * n.saturating_sub(1) / 2).collect::<Vec<_>>());
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one.install(|| attended(|| sum(100))), 99_000);
    }

    #[test]
    fn a_panic_goes_on_and_nobody_is_left_standing() {
        let caught = std::panic::catch_unwind(|| attended(|| panic!("on purpose")));
        assert!(caught.is_err());
        assert_eq!(attended(|| sum(10)), 900);
    }
}
