//! Threads that do one job each, side by side: the matrix products inside a job stay on its own thread, where they would
//! otherwise wait for each other.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Some of them; they wait between jobs.
#[derive(Debug)]
pub struct Workers {
    pools: Vec<ThreadPool>,
}

impl Workers {
    /// So many, 0 for one on each processor; no more than there are jobs.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn new(threads: usize, jobs: usize) -> Result<Self, ThreadPoolBuildError> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let one = |_| ThreadPoolBuilder::new().num_threads(1).build();
        Ok(Self { pools: (0..threads.min(jobs)).map(one).collect::<Result<_, _>>()? })
    }

    /// How many.
    pub fn number(&self) -> usize {
        self.pools.len()
    }

    /// Each of them; what runs in one (`install`) stays in it.
    pub fn pools(&self) -> &[ThreadPool] {
        &self.pools
    }

    /// Does all jobs, begun in their order, and hands over the number of each and what came of it, on this thread and as
    /// they end. No job is begun once `stop` says so, or after `take` failed.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn each<J: Sync, T: Send, E>(
        &self,
        jobs: &[J],
        stop: impl Fn() -> bool + Sync,
        work: impl Fn(usize, &J) -> T + Sync,
        mut take: impl FnMut(usize, T) -> Result<(), E>,
    ) -> Result<(), E> {
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (sender, receiver) = mpsc::sync_channel(2 * self.number());
        std::thread::scope(|scope| {
            for pool in self.pools.iter().take(jobs.len()) {
                let (sender, next, failed, stop, work) = (sender.clone(), &next, &failed, &stop, &work);
                scope.spawn(move || {
                    while !stop() && !failed.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(job) = jobs.get(number) else { break };
                        if sender.send((number, pool.install(|| work(number, job)))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            for (number, outcome) in receiver {
                if let Err(error) = take(number, outcome) {
                    failed.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
            Ok(())
        })
    }

    /// What comes of all jobs, in their order.
    pub fn map<J: Sync, T: Send>(&self, jobs: &[J], work: impl Fn(usize, &J) -> T + Sync) -> Vec<T> {
        let mut all: Vec<(usize, T)> = Vec::with_capacity(jobs.len());
        let keep = |number, outcome| -> Result<(), std::convert::Infallible> {
            all.push((number, outcome));
            Ok(())
        };
        self.each(jobs, || false, work, keep).unwrap_or_else(|never| match never {});
        all.sort_unstable_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, outcome)| outcome).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_in_the_order_of_jobs() {
        let jobs: Vec<u64> = (0..50).collect();
        for threads in [1, 3, 80] {
            let workers = Workers::new(threads, 10).unwrap();
            assert_eq!(workers.number(), threads.min(10));
            let squares = workers.map(&jobs, |number, &job| {
                assert_eq!(number as u64, job);
                assert_eq!(rayon::current_num_threads(), 1);
                if job % 7 == 0 {
                    (0..1000).for_each(|_| std::thread::yield_now());
                }
                job * job
            });
            assert_eq!(squares, jobs.iter().map(|job| job * job).collect::<Vec<_>>());
            assert!(workers.map(&[], |_, (): &()| ()).is_empty());
            assert!(Workers::new(threads, 0).unwrap().map(&[], |_, (): &()| ()).is_empty());
        }
    }

    #[test]
    fn a_failure_ends_the_work() {
        let (jobs, begun) = (vec![(); 1000], AtomicUsize::new(0));
        let work = |number: usize, (): &()| {
            begun.fetch_add(1, Ordering::Relaxed);
            number
        };
        let mut taken = 0;
        let take = |job, number| {
            assert_eq!(job, number);
            taken += 1;
            if taken == 5 { Err("five are enough") } else { Ok(()) }
        };
        let ended = Workers::new(2, jobs.len()).unwrap().each(&jobs, || false, work, take);
        assert_eq!((ended, taken), (Err("five are enough"), 5));
        assert!(begun.into_inner() < 50, "the others are left");
    }

    #[test]
    fn no_job_is_begun_after_a_stop() {
        let (stop, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
        let work = |number: usize, (): &()| {
            begun.fetch_add(1, Ordering::Relaxed);
            stop.store(number == 10, Ordering::Relaxed);
        };
        let mut taken = 0;
        let take = |_, ()| -> Result<(), ()> {
            taken += 1;
            Ok(())
        };
        let workers = Workers::new(1, 1000).unwrap();
        workers.each(&[(); 1000], || stop.load(Ordering::Relaxed), work, take).unwrap();
        assert_eq!((begun.into_inner(), taken), (11, 11));
    }
}
