//! `hawser demo --soak`: an ordinary cluster on a machine that has no time for it: every core is busy with visitors and
//! with work that is not hawser's, and the disk with writes that are flushed. Nothing is broken, so nothing may move.

use super::cluster::VIP;
use super::error::{Attempt, Result};
use super::faults::{Bench, millis};
use super::lab::Host;
use super::load::{Load, LoadReport};
use crate::clock;
use crate::time::Duration;
use serde::Serialize;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, available_parallelism};

/// The wire is judged in pieces: the instruments remember a few minutes.
const PIECE: Duration = Duration::from_secs(20);
/// Visitors that never pause.
const VISITORS: usize = 16;
/// Size of the file that is written over and over, and of one write.
const FILE_BYTES: u64 = 32 << 20;
const WRITE_BYTES: usize = 256 << 10;

/// What a soak showed.
#[derive(Debug, Default, Serialize)]
pub struct SoakReport {
    /// How long it lasted.
    pub seconds: u64,
    /// Moves of the group; none is right.
    pub failovers: usize,
    /// How long both nodes answered ARP.
    pub double_ms: f64,
    /// How late a cluster thread was ever called, on each node.
    pub worst_tick_ms: [f64; 2],
    /// Share of the machine's processors that was idle, in per cent.
    pub idle_percent: f64,
    /// Mebibytes written to the disk and flushed.
    pub written_mib: u64,
    /// What the visitors met.
    pub load: LoadReport,
}

impl SoakReport {
    /// Whether every promise was kept.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.seconds > 0 && self.failovers == 0 && self.double_ms == 0.0
    }
}

/// Keeps the machine busy for `time`, and tells what happens to `say`.
///
/// # Errors
/// If the load cannot be made, or an instrument ends.
pub fn run(
    bench: &mut Bench<'_>,
    folder: &Path,
    time: Duration,
    (report, say): (&mut SoakReport, &mut dyn FnMut(&str)),
) -> Result<()> {
    let owner = bench.settle()?;
    let load = Load::hard(bench.lab.host(Host::Client), SocketAddr::from((VIP, 80)), VISITORS)?;
    let burden = Burden::start(folder)?;
    let (began, idle_before) = (clock::now(), idle()?);
    let mut holder = owner.name().to_owned();
    let mut from = began;
    while clock::now().since(began) < time {
        bench.interrupt.wait(PIECE.min(clock::now().until(began + time)))?;
        let to = clock::now();
        let sighting = bench.observer.between(from, to)?;
        for name in sighting.holder_names() {
            if name != holder {
                report.failovers += 1;
                say(&format!("   {} answered for the address, and {holder} had it\n", name));
                holder = name;
            }
        }
        report.double_ms += millis(sighting.double);
        // The next piece begins where this one ended, with the time that judging took.
        from = to;
        report.seconds = to.since(began).as_secs();
        say(&format!("   {} s, {holder} is active\n", report.seconds));
    }
    let cores = available_parallelism().map_or(1, std::num::NonZero::get);
    report.idle_percent = percent_idle(idle()? - idle_before, clock::now().since(began), cores);
    report.written_mib = burden.end()? >> 20;
    report.load = load.finish()?;
    for (at, node) in Host::NODES.into_iter().enumerate() {
        if let Some(slot) = report.worst_tick_ms.get_mut(at) {
            *slot = bench.cluster.status(node)?.worst_tick_ms();
        }
    }
    Ok(())
}

/// The soak's findings, for people.
#[must_use]
pub fn describe(report: &SoakReport) -> String {
    let [first, second] = report.worst_tick_ms;
    format!(
        "   {} moves in {} s; both nodes answered ARP for {} ms\n   \
         processors idle {} %; {} requests, {} failed; {} MiB written and flushed\n   \
         the cluster threads were called {first} ms (n1) and {second} ms (n2) late at worst\n",
        report.failovers,
        report.seconds,
        report.double_ms,
        report.idle_percent,
        report.load.requests,
        report.load.failed,
        report.written_mib,
    )
}

/// Work that is not hawser's: one busy thread for each core, and one that writes and flushes.
#[derive(Debug)]
struct Burden {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Burden {
    fn start(folder: &Path) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let at = folder.join("burden");
        let file = File::create(&at).or_cannot(format_args!("make {}", at.display()))?;
        let mut this = Self { stop, written, threads: Vec::new() };
        for _ in 0..available_parallelism().map_or(1, std::num::NonZero::get) {
            let stop = Arc::clone(&this.stop);
            this.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                Ok(())
            })?;
        }
        let (stop, written) = (Arc::clone(&this.stop), Arc::clone(&this.written));
        this.spawn(move || write(&file, &stop, &written))?;
        Ok(this)
    }

    fn spawn(&mut self, work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new().name("burden".into()).spawn(work).or_cannot("start a thread")?;
        self.threads.push(thread);
        Ok(())
    }

    /// Bytes written.
    fn end(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap_or(Ok(())).or_cannot("write to the disk")?;
        }
        Ok(self.written.load(Ordering::Relaxed))
    }
}

impl Drop for Burden {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(file: &File, stop: &AtomicBool, written: &AtomicU64) -> std::io::Result<()> {
    let block = vec![0x5a; WRITE_BYTES];
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        file.write_all_at(&block, at)?;
        file.sync_data()?;
        at = (at + WRITE_BYTES as u64) % FILE_BYTES;
        written.fetch_add(WRITE_BYTES as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// Hundredths of a second in which a processor was idle, all together (proc_stat(5), fourth and fifth figure).
fn idle() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/stat").or_cannot("read /proc/stat")?;
    let first = text.lines().next().unwrap_or_default();
    Ok(first.split_whitespace().skip(4).take(2).filter_map(|word| word.parse::<u64>().ok()).sum())
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn percent_idle(ticks: u64, time: Duration, cores: usize) -> f64 {
    let share = ticks as f64 / (time.as_secs_f64() * 100.0 * cores as f64);
    (share * 1000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soak_that_did_not_last_or_saw_a_move_kept_nothing() {
        assert!(!SoakReport::default().kept());
        assert!(SoakReport { seconds: 1, ..SoakReport::default() }.kept());
        assert!(!SoakReport { seconds: 1, failovers: 1, ..SoakReport::default() }.kept());
        assert!(!SoakReport { seconds: 1, double_ms: 4.0, ..SoakReport::default() }.kept());
    }

    #[test]
    fn idle_time_is_a_share_of_all_processors() {
        assert!((percent_idle(100, Duration::from_secs(1), 2) - 50.0).abs() < 0.1);
    }
}
