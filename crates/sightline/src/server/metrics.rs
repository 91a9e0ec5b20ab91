//! What the server has done, as Prometheus reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the histogram's buckets, in seconds.
const BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Counts by route and status.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    routes: Mutex<BTreeMap<(String, u16), Requests>>,
}

#[derive(Debug, Default, Clone)]
struct Requests {
    count: u64,
    seconds: f64,
    /// Requests of each bucket alone.
    buckets: [u64; BUCKETS.len()],
}

impl Metrics {
    /// Counts one request. `route` is the pattern that matched, so that there are few of them.
    pub(super) fn count(&self, route: &str, status: u16, took: Duration) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = routes.entry((route.to_owned(), status)).or_default();
        let seconds = took.as_secs_f64();
        requests.count += 1;
        requests.seconds += seconds;
        if let Some(bucket) = BUCKETS.iter().position(|&bound| seconds <= bound) {
            requests.buckets[bucket] += 1;
        }
    }

    /// The text format, version 0.0.4.
    pub(super) fn text(&self, photos: usize) -> String {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut text = String::from("# HELP sightline_photos Photos in the index.\n# TYPE sightline_photos gauge\n");
        let _ = writeln!(text, "sightline_photos {photos}");
        if let Some(bytes) = resident_bytes() {
            text.push_str("# HELP process_resident_memory_bytes Resident memory, the mapped index among it.\n");
            text.push_str("# TYPE process_resident_memory_bytes gauge\n");
            let _ = writeln!(text, "process_resident_memory_bytes {bytes}");
        }
        text.push_str("# HELP sightline_request_seconds Time to the answer.\n");
        text.push_str("# TYPE sightline_request_seconds histogram\n");
        for ((route, status), requests) in &routes {
            let labels = format!("route=\"{route}\",status=\"{status}\"");
            let mut below = 0;
            for (bound, count) in BUCKETS.iter().zip(requests.buckets) {
                below += count;
                let _ = writeln!(text, "sightline_request_seconds_bucket{{{labels},le=\"{bound}\"}} {below}");
            }
            let Requests { count, seconds, .. } = requests;
            let _ = writeln!(text, "sightline_request_seconds_bucket{{{labels},le=\"+Inf\"}} {count}");
            let _ = writeln!(text, "sightline_request_seconds_sum{{{labels}}} {seconds}");
            let _ = writeln!(text, "sightline_request_seconds_count{{{labels}}} {count}");
        }
        text
    }
}

/// Resident memory of this process, where the system tells in Linux's way.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let metrics = Metrics::default();
        for milliseconds in [1, 7, 8, 60_000] {
            metrics.count("/x", 200, Duration::from_millis(milliseconds));
        }
        let text = metrics.text(5);
        for line in [
            "sightline_photos 5",
            "sightline_request_seconds_bucket{route=\"/x\",status=\"200\",le=\"0.005\"} 1",
            "sightline_request_seconds_bucket{route=\"/x\",status=\"200\",le=\"0.01\"} 3",
            "sightline_request_seconds_bucket{route=\"/x\",status=\"200\",le=\"30\"} 3",
            "sightline_request_seconds_bucket{route=\"/x\",status=\"200\",le=\"+Inf\"} 4",
            "sightline_request_seconds_count{route=\"/x\",status=\"200\"} 4",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is not in\n{text}");
        }
    }
}
