//! `decode-picture`: what `serve` starts for a picture that somebody sent; not meant for people.

use crate::server::upload;

/// Decode one picture from standard input to standard output, under limits
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Megabytes of addresses that may be used
    #[arg(long, default_value_t = 1024)]
    megabytes: u64,
    /// Seconds of the processor that may be used
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// Decodes and ends.
pub fn run(args: &Args) -> anyhow::Result<()> {
    limit(args);
    Ok(upload::decode_between(std::io::stdin().lock(), std::io::stdout().lock())?)
}

/// Whatever a decoder is made to do by a picture, it does with this much and no more.
#[cfg(unix)]
fn limit(args: &Args) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limits = [
        (Resource::As, args.megabytes << 20),
        (Resource::Cpu, args.seconds),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
    ];
    for (resource, most) in limits {
        let most = Some(getrlimit(resource).maximum.map_or(most, |own| own.min(most)));
        // A system that knows no such limit goes without; the picture's size is looked at in any case.
        let _ = setrlimit(resource, Rlimit { current: most, maximum: most });
    }
}

/// Elsewhere the server's watch over the time remains, and the picture's size is looked at first.
#[cfg(not(unix))]
fn limit(_: &Args) {}
