//! Ctrl-C asks long jobs to stop at their next step; a second one ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);
static QUIET: AtomicBool = AtomicBool::new(false);

/// Installs the handler, once, and returns the flag that a job looks at.
pub fn flag() -> &'static AtomicBool {
    static INSTALLED: std::sync::Once = std::sync::Once::new();
    INSTALLED.call_once(|| {
        let handler = || {
            if STOP.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            if !QUIET.load(Ordering::Relaxed) {
                crate::ui::aside("\nstopping after this step; press Ctrl-C again to end at once");
            }
        };
        // Where no handler can be set, Ctrl-C ends the program as it always does; files stay whole either way.
        let _ = ctrlc::set_handler(handler);
    });
    &STOP
}

/// From here on the handler says nothing: nobody wants to be talked to, or what runs now stops by itself.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}
